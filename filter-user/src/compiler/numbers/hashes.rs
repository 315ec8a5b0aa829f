//! How owners are known in the kernel's tables: by hashes of their names.

use sha2::{Digest, Sha256};

use crate::compiler::Pushed;
use crate::compiler::threads::in_halves;
use crate::policy::Policy;

/// How an owner is known in the kernel's tables: the first half of the SHA-256 of its name.
pub type OwnerHash = [u8; 16];

pub fn owner_hash(name: &str) -> OwnerHash {
    half_of(Sha256::new().chain_update(name))
}

/// The clients', then the grantees'.
pub(super) fn owner_hashes(policy: &Policy, pushed: &Pushed) -> Vec<OwnerHash> {
    let clients = policy
        .clients
        .iter()
        .map(|client| ("client/", client.name.as_str()));
    let hash = |(start, name): (&str, &str)| half_of(Sha256::new().chain_update(start).chain_update(name));
    let mut hashes: Vec<OwnerHash> = clients.map(hash).collect();
    let names = &pushed.grantees;
    hashes.extend(in_halves(names.len(), |half| {
        let names = names.keys().skip(half.start).take(half.len());
        names.map(|name| owner_hash(name)).collect()
    }));
    hashes
}

fn half_of(hasher: Sha256) -> OwnerHash {
    let digest = hasher.finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}
