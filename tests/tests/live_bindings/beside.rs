//! Single bindings and denies while a large policy is read, compiled and loaded: in force at once, and in the new tables as well.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Stdio};

use keyfence_tests::harness::{Attach, Policy, keyfence};
use serde_json::Value;

use super::stage::{ENTRIES, PORT, Stage};

/// Of one client: even an optimised build is busy with them for many times as long as one change takes.
const SOURCES: u32 = 300_000;
const RELOADS: u32 = 3;
/// Put, tried, deleted and tried in one reload. The first may come before it, the last behind it.
const TURNS_AT_LEAST: u32 = 5;

const ENTRY: &str = r#"
[[client]]
name = "many"
sources-file = "many.txt"
services = ["spare"]
"#;

fn policy(variant: u32) -> Policy {
    // A number that only the log shows: each is another policy.
    let entry = format!("{ENTRY}note = \"{variant}\"\n");
    Policy::new(Attach::Native, &format!("{ENTRIES}{entry}"))
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, last).into()
}

struct Scene {
    stage: Stage,
    /// Bindings made while a policy was on its way that are to stay, by the last byte of their addresses.
    kept: Vec<u8>,
    /// Those deleted meanwhile.
    gone: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let site = keyfence_tests::harness::Site::new();
        let first = u32::from(Ipv4Addr::new(172, 16, 0, 0));
        let mut sources = String::new();
        for address in (first..).step_by(3).take(SOURCES as usize) {
            // Writing to a String cannot fail.
            let _ = writeln!(sources, "{}", Ipv4Addr::from(address));
        }
        fs::write(site.folder().join("many.txt"), sources).expect("a temporary folder can be written");
        let stage = Stage::at(site, &policy(0));
        (100..130).for_each(|last| stage.settle(address(last)));
        Self {
            stage,
            kept: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn bind(&self, last: u8) {
        let source = address(last).to_string();
        self.stage.bind(&format!("key-{last}"), &[&source]);
    }

    fn reload(&self, variant: u32) -> Child {
        self.stage.site.write(&policy(variant));
        let mut reload = keyfence();
        reload.args(["reload", "--socket"]).arg(self.stage.site.socket());
        reload.stdout(Stdio::null()).spawn().expect("the command starts")
    }

    /// Everything that was done meanwhile is as it was answered.
    fn check(&mut self) {
        let sources: Vec<IpAddr> = self
            .kept
            .iter()
            .chain(&self.gone)
            .map(|last| address(*last))
            .collect();
        let expected: Vec<bool> = (0..sources.len()).map(|at| at < self.kept.len()).collect();
        assert_eq!(self.stage.passing(&sources, PORT), expected, "{sources:?}");
    }
}

/// Whether it has not ended: what was done before was done beside it.
fn is_running(reload: &mut Child) -> bool {
    reload.try_wait().expect("it is our child").is_none()
}

#[test]
fn single_bindings_are_in_force_while_a_large_policy_is_on_its_way_and_after_it() {
    let mut scene = Scene::new();
    let (turning, mut next) = (100, 101);
    // One for each reload that is there before it, and is deleted meanwhile.
    for _ in 0..RELOADS {
        scene.bind(next);
        scene.gone.push(next);
        next += 1;
    }
    for variant in 1..=RELOADS {
        let generation = scene.stage.daemon().generation();
        let mut reload = scene.reload(variant);
        let mut turns = 0;
        while is_running(&mut reload) {
            scene.bind(turning);
            let passes = scene.stage.passes(address(turning));
            scene.stage.unbind(&format!("key-{turning}"));
            let cut = !scene.stage.passes(address(turning));
            assert!(passes && cut, "an answer is in force: {passes} {cut}");
            if turns == 1 {
                // One of each kind stays as it is left here.
                scene.bind(next);
                assert!(scene.stage.passes(address(next)));
                scene.kept.push(next);
                next += 1;
                let gone = scene.gone[variant as usize - 1];
                scene.stage.unbind(&format!("key-{gone}"));
                assert!(!scene.stage.passes(address(gone)));
            }
            // What ended before this was asked is no proof.
            turns += u32::from(is_running(&mut reload));
        }
        assert!(reload.wait().expect("it is our child").success());
        assert!(turns >= TURNS_AT_LEAST, "{turns} turns beside a reload");
        assert_eq!(
            scene.stage.daemon().generation(),
            generation + 1,
            "none took a generation"
        );

        println!("{turns} turns beside a reload");
    }
    scene.check();
    let answer = scene.stage.ask("GET", "/v1/bindings", &Value::Null);
    assert_eq!(
        answer.body.matches("\"credential\"").count(),
        RELOADS as usize,
        "{}",
        answer.body
    );
    scene.stage.kill();
    scene.check();
    scene.stage.start_again();
    scene.check();
}

#[test]
fn prefixes_and_denies_are_in_force_while_a_large_policy_is_on_its_way_and_after_it() {
    let mut scene = Scene::new();
    let v6 = |last: u16| IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 1, last]);
    scene.stage.settle(v6(1));
    scene.stage.bind("key-denied", &["10.77.0.101", "10.77.0.113"]);
    let deny =
        |sources: &[&str]| serde_json::json!({ "sources": sources, "seconds": 600, "reason": "a test" });
    let generation = scene.stage.daemon().generation();
    let mut reload = scene.reload(1);
    let mut turns = 0;
    while is_running(&mut reload) {
        let stage = &mut scene.stage;
        let sources = [address(100), address(101), address(105), v6(1)];
        stage.bind("key-wide", &["10.77.0.96/28", "fd77::1:0/112"]);
        assert_eq!(stage.passing(&sources, PORT), [true; 4]);
        stage.done(
            "PUT",
            "/v1/denies/abuse",
            &deny(&["10.77.0.104/29", "10.77.0.101", "fd77::1:0/127"]),
        );
        assert_eq!(stage.passing(&sources, PORT), [true, false, false, false]);
        stage.done("DELETE", "/v1/denies/abuse", &Value::Null);
        assert_eq!(stage.passing(&sources, PORT), [true; 4]);
        stage.unbind("key-wide");
        assert_eq!(stage.passing(&sources, PORT), [false, true, false, false]);
        turns += u32::from(is_running(&mut reload));
    }
    assert!(reload.wait().expect("it is our child").success());
    assert!(turns >= 1, "{turns} turns beside a reload");
    assert_eq!(
        scene.stage.daemon().generation(),
        generation + 1,
        "none took a generation"
    );
    // As they are left while another is on its way, they are in the new one, and in the one that a start makes.
    let mut reload = scene.reload(2);
    scene.stage.bind("key-wide", &["10.77.0.96/28", "10.77.0.112/28"]);
    scene.stage.done(
        "PUT",
        "/v1/denies/abuse",
        &deny(&["10.77.0.104/29", "10.77.0.101"]),
    );
    scene.kept.extend([100, 102, 113]);
    scene.gone.extend([101, 105, 128]);
    scene.check();
    assert!(reload.wait().expect("it is our child").success());
    assert_eq!(
        scene.stage.daemon().generation(),
        generation + 2,
        "none took a generation"
    );
    scene.check();
    scene.stage.kill();
    scene.stage.start_again();
    scene.check();
    scene.stage.done("DELETE", "/v1/denies/abuse", &Value::Null);
    assert!(scene.stage.passes(address(101)));
}
