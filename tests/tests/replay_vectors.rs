//! The vectors through `keyfence replay`, as operators run it.

use std::path::Path;

use keyfence_tests::harness::keyfence;
use keyfence_tests::vector_captures::{Comparison, Group, POLICY, groups};

fn replay(group: &Group, folder: &Path) -> String {
    let mut command = keyfence();
    command
        .current_dir(folder)
        .args(["replay", "--json", "--policy", POLICY]);
    for address in &group.host_addresses {
        command.arg("--host-address").arg(address.to_string());
    }
    let output = command.args(group.captures()).output().expect("keyfence starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {}: {errors}",
        group.name,
        output.status
    );
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

#[test]
fn replay_answers_every_vector_as_the_contract_says() {
    let folder = tempfile::tempdir().expect("a folder for the captures");
    let mut comparison = Comparison::default();
    for group in groups().expect("the vectors are in the repository") {
        let folder = folder.path().join(&group.name);
        group.write(&folder).expect("the captures can be written");
        comparison.add(&group, &replay(&group, &folder));
    }
    println!("replay: {comparison}");
    assert!(comparison.frames > 3_000, "the vectors are there: {comparison}");
    let faults = &comparison.disagreements;
    assert!(faults.is_empty(), "{comparison}:\n{}", faults.join("\n"));
}
