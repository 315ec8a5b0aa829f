//! Upgrades to the build with another layout, and the documented way back.

use std::fs;
use std::process::Command;

use keyfence_tests::harness::{Daemon, keyfence_path, run, until};
use nix::sys::signal::Signal;

use super::actions::Storm;

impl Storm<'_> {
    /// There, some things done under it, and back: what was bound meanwhile is bound anew, as publishers do.
    pub(super) fn upgrade(&mut self) {
        match self.below(2) {
            0 => self.kill(),
            _ => self.end(),
        }
        self.is_next = true;
        self.start();
        let before = self.bindings.clone();
        for _ in 0..self.below(4) {
            match self.below(4) {
                0 => drop(self.apply(None)),
                1 => self.bind(false),
                2 => self.unbind(),
                _ => {
                    self.kill();
                    self.start();
                }
            }
        }
        self.end();
        self.go_back();
        self.is_next = false;
        self.start();
        // Until here they tell that somebody went back.
        for newer in ["bindings.redb.newer", "policy.newer"] {
            run(Command::new("rm").arg("-r").arg(self.site.state().join(newer)));
        }
        // The store is the one of before: its publisher says what has changed since.
        let now = std::mem::replace(&mut self.bindings, before);
        let gone: Vec<String> = self.bindings.keys().cloned().collect();
        for name in gone.into_iter().filter(|name| !now.contains_key(name)) {
            self.unbind_this(&name);
        }
        for (name, source) in now {
            if self.bindings.get(&name) != Some(&source) {
                self.bind_this(&name, &source);
            }
        }
    }

    fn end(&mut self) {
        let status = self.daemon.take().expect("the daemon runs").end(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0));
    }

    /// What a start says that is refused, done as it says: the store's is the last.
    fn go_back(&mut self) {
        self.downgrade = true;
        until("an older build goes on", || {
            let mut command = Daemon::command_of(self.site, &keyfence_path());
            let ended = Daemon::refused(self.site, command.arg("--downgrade"));
            assert_eq!(ended.code, Some(1), "{}", ended.log);
            run(&mut Daemon::way_back(&ended));
            ended.log.contains("bindings.redb").then_some(())
        });
        // Each upgrade leaves a copy of what was before; the disk here is small.
        let files = fs::read_dir(self.site.state()).expect("it is there").flatten();
        let copies = files.filter(|file| {
            let name = file.file_name().into_string().expect("a name");
            name.starts_with("bindings.format-") || name.starts_with("policy.schema-")
        });
        copies.for_each(|copy| drop(run(Command::new("rm").arg("-r").arg(copy.path()))));
    }
}
