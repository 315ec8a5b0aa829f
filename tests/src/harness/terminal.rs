//! A real terminal emulator, tmux, that a program runs in: keys go in, and what stands on its screen comes out.

use std::path::PathBuf;
use std::process::Command;

use super::program::{output, run, system};
use super::wait::until;

/// One terminal of a server of its own; both go with this.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// With a shell in it, so many columns and rows, in a folder of the test's own.
    pub fn open(folder: &std::path::Path, (columns, rows): (u16, u16)) -> Self {
        let terminal = Self {
            socket: folder.join("tmux.sock"),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut command = terminal.tmux();
        command.args([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
        ]);
        // A prompt that can be told from all else.
        run(command.args([
            "env",
            "PS1=prompt> ",
            "TERM=screen-256color",
            "LC_ALL=C.UTF-8",
            "sh",
        ]));
        until("the shell is there", || {
            terminal.screen().contains("prompt>").then_some(())
        });
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = system("tmux");
        command
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .arg("-S")
            .arg(&self.socket);
        command
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p"]))
    }

    /// The same with its colours, as escape sequences.
    pub fn colours(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p", "-e"]))
    }

    /// What tmux knows of the terminal, by its own format.
    pub fn state(&self, format: &str) -> String {
        run(self.tmux().args(["display-message", "-p", format]))
            .trim()
            .to_owned()
    }

    /// Text as it is typed.
    pub fn types(&self, text: &str) {
        run(self.tmux().args(["send-keys", "-l", text]));
    }

    /// A key by tmux' name for it: `Enter`, `Down`, `C-c`.
    pub fn press(&self, key: &str) {
        run(self.tmux().args(["send-keys", key]));
    }

    pub fn resize(&self, (columns, rows): (u16, u16)) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        run(self.tmux().args(["resize-window", "-x", &columns, "-y", &rows]));
    }

    /// The screen as soon as it shows this.
    pub fn shows(&self, what: &str) -> String {
        let mut last = String::new();
        until(&format!("the terminal shows {what:?}"), || {
            last = self.screen();
            last.contains(what).then(|| last.clone())
        })
    }

    /// Closes the window under its program, as a lost connection does.
    pub fn close(&self) {
        run(self.tmux().arg("kill-server"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let screen = output(self.tmux().args(["capture-pane", "-p"])).stdout;
            eprintln!("--- the terminal:\n{}---", String::from_utf8_lossy(&screen));
        }
        // It may be gone already.
        output(self.tmux().arg("kill-server"));
    }
}
