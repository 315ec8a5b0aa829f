fn main() {
    println!(
        "cargo:rustc-env=KEYFENCE_EBPF={}",
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/ebpf/bpfel-unknown-none/release/keyfence"
        )
    );
    println!("cargo:rerun-if-changed=../target/ebpf/bpfel-unknown-none/release/keyfence");
}
