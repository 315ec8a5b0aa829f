//! Frames with answers worked out by hand from the contract, judged by the reference and by the kernel program.

use keyfence_tests::oracle::vectors::{START_NS, VectorFile, files};
use keyfence_tests::subject::{Answer, Subject, folder};

/// The kernel's test run takes no frame this long (its words for it are `Argument list too long`, and others).
const TEST_RUN_LONGEST: usize = 60_000;

#[test]
fn every_vector_is_judged_as_the_contract_says_on_the_host_and_in_the_kernel() {
    let paths = files(&folder().join("vectors")).expect("the vectors are in the repository");
    let (mut cases, mut host_only, mut faults) = (0u32, 0u32, Vec::new());
    for path in &paths {
        let file = VectorFile::read(path).unwrap_or_else(|error| panic!("{error}"));
        let mut subject = Subject::new(&file.policy, &file.host_addresses, START_NS)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in &file.cases {
            let frame = case
                .bytes()
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let expected = |answer: &Answer| {
                answer.verdict == case.verdict
                    && answer.reason == case.reason
                    && answer.service.as_deref().unwrap_or("") == case.service
                    && answer.owner.as_deref().unwrap_or("") == case.owner
            };
            for _ in 0..case.times.max(1) {
                cases += 1;
                let host = subject.host(&frame, case.now_ns());
                let name = format!("{}: {}", path.display(), case.name);
                if !expected(&host) {
                    faults.push(format!(
                        "{name}: host {host:?}, not {} {} ({})",
                        case.verdict, case.reason, case.why
                    ));
                }
                if frame.len() > TEST_RUN_LONGEST {
                    host_only += 1;
                    continue;
                }
                match subject.kernel(&frame, case.now_ns()) {
                    Ok(kernel) if expected(&kernel) => {}
                    other => faults.push(format!(
                        "{name}: kernel {other:?}, not {} {}",
                        case.verdict, case.reason
                    )),
                }
            }
        }
    }
    println!(
        "vectors: {} files, {cases} frames, {host_only} on the host only, {} faults",
        paths.len(),
        faults.len()
    );
    assert!(cases > 1_000, "the vectors are there");
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
