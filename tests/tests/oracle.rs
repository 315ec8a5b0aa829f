//! The kernel program and the reference against a judge that shares no code with them, on frames nobody chose.
//!
//! `KEYFENCE_ORACLE_FRAMES` raises the number of random frames (a million else), `KEYFENCE_ORACLE_SEED` sets the
//! first seed; a disagreement prints the seed, the policy and the frame.

use std::collections::BTreeMap;

use keyfence_tests::oracle::judge::Judge;
use keyfence_tests::oracle::random::{Budgets, run};
use keyfence_tests::oracle::vectors::{START_NS, VectorFile};
use keyfence_tests::oracle::{captures, policy::Policy};
use keyfence_tests::subject::{Answer, Subject, folder};

/// The kernel's test run takes no frame this long.
const TEST_RUN_LONGEST: usize = 60_000;
const FRAMES_EACH: usize = 10_000;
const FRAMES: u64 = 1_000_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn differs(answer: &Answer, wanted: &keyfence_tests::oracle::judge::Verdict) -> bool {
    answer.verdict != wanted.verdict.as_str()
        || answer.reason != wanted.reason
        || answer.service != wanted.service
        || answer.owner != wanted.owner
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn random_frames_under_random_policies_are_judged_as_the_oracle_judges_them() {
    let frames = setting("KEYFENCE_ORACLE_FRAMES", FRAMES);
    let first = setting("KEYFENCE_ORACLE_SEED", 1);
    let (mut judged, mut reasons) = (0u64, BTreeMap::<(&str, &str), u64>::new());
    for seed in first..first + frames.div_ceil(FRAMES_EACH as u64) {
        // Budgets whose tokens are whole nanoseconds: any correct bucket agrees with exact arithmetic.
        let budgets = if seed % 2 == 0 {
            Budgets::None
        } else {
            Budgets::Whole
        };
        let random = run(seed, FRAMES_EACH, budgets);
        let text = random.policy.to_toml();
        let start = random.frames.first().map_or(START_NS, |(now, _)| *now);
        let mut oracle = Judge::new(&random.policy);
        let mut subject = Subject::new(&text, &random.policy.host_addresses, start)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        for (number, (now, frame)) in random.frames.iter().enumerate() {
            let wanted = oracle.judge(frame, *now);
            let host = subject.host(frame, *now);
            let kernel = subject
                .kernel(frame, *now)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(
                !differs(&host, &wanted) && !differs(&kernel, &wanted),
                "seed {seed}, frame {number}: oracle {wanted:?}\n host   {host:?}\n kernel {kernel:?}\n{}\n{text}",
                hex(frame)
            );
            *reasons.entry((kernel.verdict, kernel.reason)).or_default() += 1;
            judged += 1;
        }
    }
    println!("oracle: {judged} random frames, 0 disagreements; {reasons:?}");
    assert!(reasons.len() >= 25, "the frames reach the rules: {reasons:?}");
}

/// Policies of the vectors, chosen to reach every rule.
const POLICIES: [&str; 4] = [
    "01-non-ip-dropped",
    "06-ping-listed",
    "08-listed-other",
    "09-grants",
];

#[test]
fn captured_frames_are_judged_as_the_oracle_judges_them() {
    let Some(captures) =
        captures::folder(folder().parent().expect("a workspace")).unwrap_or_else(|e| panic!("{e}"))
    else {
        println!("captures: not given");
        return;
    };
    let wide = "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nother-traffic = \"drop\"\nmanagement-none = true\n\
        [[service]]\nname = \"all\"\nprotocol = [\"tcp\", \"udp\"]\nports = [\"1-65535\"]\n\
        [[client]]\nname = \"half\"\nsources = [\"0.0.0.0/1\", \"::/1\"]\nservices = [\"*\"]\n";
    let mut texts = vec![String::from(wide)];
    for path in
        keyfence_tests::oracle::vectors::files(&folder().join("vectors")).expect("the vectors are there")
    {
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if POLICIES.iter().any(|wanted| name.starts_with(wanted)) {
            texts.push(
                VectorFile::read(&path)
                    .unwrap_or_else(|error| panic!("{error}"))
                    .policy,
            );
        }
    }
    let (mut judged, mut skipped, mut unreadable, mut host_only) = (0u64, 0u64, 0u64, 0u64);
    for text in &texts {
        let policy = Policy::from_toml(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut oracle = Judge::new(&policy);
        let mut subject = Subject::new(text, &[], START_NS).unwrap_or_else(|error| panic!("{error}"));
        for captured in captures::all(&captures).expect("the folder can be read") {
            let Ok(captured) = captured else {
                unreadable += 1;
                continue;
            };
            if captured.link_type != 1 || captured.cut() || captured.bytes.len() < 14 {
                skipped += 1;
                continue;
            }
            let wanted = oracle.judge(&captured.bytes, START_NS);
            let host = subject.host(&captured.bytes, START_NS);
            if captured.bytes.len() > TEST_RUN_LONGEST {
                assert!(
                    !differs(&host, &wanted),
                    "{}: {wanted:?} {host:?}",
                    captured.file.display()
                );
                host_only += 1;
                continue;
            }
            let kernel = subject.kernel(&captured.bytes, START_NS);
            let kernel = kernel.unwrap_or_else(|error| panic!("{}: {error}", captured.file.display()));
            assert!(
                !differs(&host, &wanted) && !differs(&kernel, &wanted),
                "{} frame {}: oracle {wanted:?}\n host   {host:?}\n kernel {kernel:?}\n{}",
                captured.file.display(),
                captured.index,
                hex(&captured.bytes)
            );
            judged += 1;
        }
    }
    println!(
        "captures: {} policies, {judged} frames judged, 0 disagreements; {host_only} too long for the kernel's \
         test run and judged on the host; {skipped} not judged (link type, cut, \
         short), {unreadable} files end unreadable",
        texts.len()
    );
    assert!(judged > 10_000, "the captures are there");
}
