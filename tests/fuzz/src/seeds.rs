//! What a target starts from: written into its corpus when it starts, from the vectors and the captures.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::oracle::captures;
use crate::oracle::vectors::{VectorFile, files};

/// Set by `cargo xtask fuzz`: the folder that libFuzzer reads as its corpus.
const FOLDER: &str = "KEYFENCE_FUZZ_CORPUS";
/// Of the captures: enough of each file, and no frame that costs more than it shows.
const FRAMES_OF_A_FILE_MAX: usize = 40;
const FRAME_BYTES_MAX: usize = 2048;

/// The vector files, in the order of their names.
pub fn vectors() -> Vec<VectorFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let paths = files(&folder).expect("the vectors are in the repository");
    paths
        .iter()
        .map(|path| VectorFile::read(path).expect("a vector file is readable"))
        .collect()
}

/// Every vector's frame, with the number of its file.
pub fn vector_frames() -> Vec<(usize, Vec<u8>)> {
    let mut frames = Vec::new();
    for (number, file) in vectors().into_iter().enumerate() {
        let bytes = file
            .cases
            .iter()
            .map(|case| case.bytes().expect("a vector's frame is hex"));
        frames.extend(
            bytes
                .filter(|frame| frame.len() <= FRAME_BYTES_MAX)
                .map(|frame| (number, frame)),
        );
    }
    frames
}

/// Frames of the captures, each once; none where there are no captures.
pub fn captured_frames() -> BTreeSet<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut frames = BTreeSet::new();
    let Some(folder) = captures::folder(&root).expect("KEYFENCE_CAPTURES is a folder") else {
        return frames;
    };
    for path in captures::files(&folder).expect("the captures can be listed") {
        let (captured, _) = captures::read(&path);
        let ethernet = captured
            .into_iter()
            .filter(|frame| frame.link_type == captures::ETHERNET && !frame.cut());
        let frame = ethernet
            .map(|frame| frame.bytes)
            .filter(|bytes| bytes.len() <= FRAME_BYTES_MAX);
        frames.extend(frame.take(FRAMES_OF_A_FILE_MAX));
    }
    frames
}

/// Writes the seeds that are not there yet; nothing where no folder is named.
pub fn write(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    for (number, seed) in seeds().into_iter().enumerate() {
        let path = folder.join(format!("seed-{number}"));
        if !path.exists() {
            fs::write(&path, seed).expect("the corpus can be written");
        }
    }
}
