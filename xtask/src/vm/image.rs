//! What a machine boots: an archive in memory (cpio, "newc"), with the vectors, static programs and busybox.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{Programs, kernels::Kernel};
use crate::workspace;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";
const INIT: &str = include_str!("init.sh");
const LIVE_POLICY: &str = include_str!("live.toml");
/// The daemon gives its socket to the group keyfence.
const GROUPS: &str = "root:x:0:\nkeyfence:x:900:\n";
const USERS: &str = "root:x:0:0:root:/:/bin/sh\n";

/// Everything that the machine needs, as one file.
pub(super) fn build(kernel: &Kernel, programs: &Programs, vectors: &Path) -> Result<Vec<u8>> {
    let busybox = workspace::program("busybox").context("busybox is missing")?;
    let mut archive = Archive::default();
    for folder in [
        "bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "var", "var/lib", "vectors",
    ] {
        archive.add(folder, FOLDER, &[])?;
    }
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    archive.add("live.toml", FILE, LIVE_POLICY.as_bytes())?;
    archive.add("etc/group", FILE, GROUPS.as_bytes())?;
    archive.add("etc/passwd", FILE, USERS.as_bytes())?;
    for (name, path) in [
        ("bin/busybox", busybox.as_path()),
        ("bin/keyfence", programs.keyfence.as_path()),
        ("bin/keyfence-next", programs.next.as_path()),
    ] {
        let program = read(path)?;
        ensure!(
            is_static(&program),
            "{} needs shared libraries, which the machine has not; of busybox, install the package busybox-static",
            path.display()
        );
        archive.add(name, PROGRAM, &program)?;
    }
    let mut order = String::new();
    for module in kernel.modules() {
        let name = name_of(&module)?;
        archive.add(&format!("modules/{name}"), FILE, &read(&module)?)?;
        order += &format!("{name}\n");
    }
    archive.add("modules/order", FILE, order.as_bytes())?;
    for group in children(vectors)? {
        let folder = format!("vectors/{}", name_of(&group)?);
        archive.add(&folder, FOLDER, &[])?;
        for file in children(&group)? {
            archive.add(&format!("{folder}/{}", name_of(&file)?), FILE, &read(&file)?)?;
        }
    }
    archive.end()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn name_of(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.with_context(|| format!("{} has no name that is text", path.display()))
}

fn children(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether a 64-bit ELF file asks for no loader: none of its program headers is PT_INTERP (elf(5)).
fn is_static(program: &[u8]) -> bool {
    let half = |at: usize| Some(u16::from_le_bytes(program.get(at..at + 2)?.try_into().ok()?).into());
    let word = |at: usize| Some(u32::from_le_bytes(program.get(at..at + 4)?.try_into().ok()?));
    let table = || -> Option<(usize, usize, usize)> {
        let start = usize::try_from(word(0x20)?).ok()?;
        Some((start, half(0x36)?, half(0x38)?))
    };
    let Some((start, size, count)) = table().filter(|_| program.starts_with(b"\x7fELF\x02\x01")) else {
        return false;
    };
    const INTERPRETER: u32 = 3;
    (0..count).all(|at| word(start + at * size).is_some_and(|kind| kind != INTERPRETER))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entries += 1;
        let Ok(size) = u32::try_from(data.len()) else {
            bail!("{name} is too large for the archive");
        };
        let links = 1 + u32::from(mode == FOLDER);
        let name_size = u32::try_from(name.len() + 1)?;
        let (owner, time, device, check) = (0, 0, 0, 0);
        // inode, mode, user, group, links, time, size, 2 + 2 device numbers, size of the name, check.
        let fields = [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            device,
            device,
            device,
            device,
            name_size,
            check,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Result<Vec<u8>> {
        self.add(TRAILER, 0, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_data_begin_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.add("a", FOLDER, &[]).unwrap();
        archive.add("a/bc", FILE, b"12345").unwrap();
        let bytes = archive.end().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(&text[..6], "070701");
        // 110 bytes of header and "a\0" are 112.
        assert_eq!(&text[112..118], "070701");
        let name = 112 + 110;
        assert_eq!(&text[name..name + 5], "a/bc\0");
        let data = (name + 5usize).next_multiple_of(4);
        assert_eq!(&text[data..data + 5], "12345");
        assert!(text.contains(TRAILER));
    }

    #[test]
    fn this_test_program_needs_a_loader_and_text_is_no_program() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
