//! What a machine printed for us: lines that begin with `@@`, and between `@@ replay GROUP` and `@@ replayed STATUS`
//! the answers of keyfence. `init.sh` writes them.

use std::{collections::BTreeMap, fmt};

#[derive(Debug, Default, PartialEq)]
pub(super) struct Answers {
    /// What replay printed for each group of vectors.
    pub(super) groups: BTreeMap<String, String>,
    /// Groups whose replay ended with a failure.
    failed: Vec<String>,
    release: Option<String>,
    booted_seconds: Option<String>,
    /// How the filter sits on each device, as `auto bond0 native`.
    attached: Vec<String>,
    /// Of the judge in force, as the verifier counts.
    verified: Option<String>,
    live: Vec<Check>,
    ended: bool,
}

/// One thing tried with real packets.
#[derive(Debug, PartialEq)]
struct Check {
    wanted: String,
    became: String,
    name: String,
}

impl Answers {
    pub(super) fn read(text: &str) -> Self {
        let mut answers = Self::default();
        let mut group: Option<(String, String)> = None;
        for line in text.lines() {
            let Some(mark) = line.strip_prefix("@@ ") else {
                if let Some((_, lines)) = &mut group {
                    lines.push_str(line);
                    lines.push('\n');
                }
                continue;
            };
            let (word, rest) = mark.split_once(' ').unwrap_or((mark, ""));
            match word {
                "replay" => group = Some((rest.to_owned(), String::new())),
                "replayed" => {
                    let (name, lines) = group.take().unwrap_or_default();
                    if rest != "0" {
                        answers.failed.push(name.clone());
                    }
                    answers.groups.insert(name, lines);
                }
                _ => answers.mark(word, rest),
            }
        }
        answers
    }

    fn mark(&mut self, word: &str, rest: &str) {
        let text = || Some(rest.to_owned()).filter(|text| !text.is_empty());
        match word {
            "kernel" => {
                let (release, seconds) = rest.split_once(' ').unwrap_or((rest, ""));
                self.release = Some(release.to_owned());
                self.booted_seconds = Some(seconds.to_owned());
            }
            "attached" => self.attached.push(rest.to_owned()),
            "verified" => self.verified = text(),
            "end" => self.ended = true,
            "live" => {
                let mut words = rest.splitn(3, ' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                let (wanted, became, name) = (next(), next(), next());
                self.live.push(Check { wanted, became, name });
            }
            _ => {}
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// All that is wrong, but the vectors.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .failed
            .iter()
            .map(|group| format!("{group}: keyfence replay failed"))
            .collect();
        let wrong = self.live.iter().filter(|check| check.wanted != check.became);
        faults.extend(wrong.map(|Check { wanted, became, name }| format!("{name}: {became}, not {wanted}")));
        if self.live.is_empty() {
            faults.push("nothing was tried live".to_owned());
        }
        if self.verified.is_none() {
            faults.push("the kernel does not tell how many instructions it verified".to_owned());
        }
        if !self.ended {
            faults.push("it did not come to its end".to_owned());
        }
        faults
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        write!(
            f,
            "{} live checks, 0 failed ({}); {} verified instructions; booted in {} s",
            self.live.len(),
            self.attached.join(", "),
            or_none(&self.verified),
            or_none(&self.booted_seconds),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "@@ kernel 6.1.0-56-cloud-amd64 3.49\r\n@@ replay a\n{\"frame\":1}\n{\"summary\":{}}\n@@ replayed 0\n\
        @@ verified 62922\n@@ attached auto bond0 native\n@@ live drop drop bond: a stranger connects\n@@ end 70.1\n";

    #[test]
    fn a_whole_run_has_no_faults() {
        let answers = Answers::read(TEXT);
        assert_eq!(answers.faults(), Vec::<String>::new());
        assert_eq!(answers.groups["a"], "{\"frame\":1}\n{\"summary\":{}}\n");
        assert_eq!(
            answers.to_string(),
            "1 live checks, 0 failed (auto bond0 native); 62922 verified instructions; booted in 3.49 s"
        );
    }

    #[test]
    fn a_stranger_who_connects_a_failed_replay_and_a_missing_end_are_faults() {
        for (right, wrong) in [
            ("live drop drop", "live drop pass"),
            ("replayed 0", "replayed 1"),
            ("@@ end 70.1", ""),
            ("@@ verified 62922", "@@ verified"),
        ] {
            let faults = Answers::read(&TEXT.replace(right, wrong)).faults();
            assert_eq!(faults.len(), 1, "{wrong}: {faults:?}");
        }
    }
}
