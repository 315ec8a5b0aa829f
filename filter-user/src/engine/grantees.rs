//! What is granted to bindings in the tables of one generation, by the numbers that their owners have there: to find one
//! compares no names.

use crate::bindings::seam::Grantee;

#[derive(Default)]
pub(super) struct Grantees(Vec<Option<Grantee>>);

impl FromIterator<(u32, Grantee)> for Grantees {
    fn from_iter<I: IntoIterator<Item = (u32, Grantee)>>(numbered: I) -> Self {
        let mut grantees = Self::default();
        for (number, grantee) in numbered {
            grantees.put(number, grantee);
        }
        grantees
    }
}

impl Grantees {
    /// The grant of an owner that has this number, where it has one.
    pub(super) fn get(&self, number: Option<u32>, owner: &str) -> Option<&Grantee> {
        let grantee = self.0.get(number? as usize)?.as_ref()?;
        (*grantee.credential == *owner).then_some(grantee)
    }

    /// Takes the place of whatever was under this number.
    pub(super) fn put(&mut self, number: u32, grantee: Grantee) {
        let number = number as usize;
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        self.0[number] = Some(grantee);
    }

    pub(super) fn set_end(&mut self, number: Option<u32>, end: u64) {
        let grantee = number.and_then(|number| self.0.get_mut(number as usize)?.as_mut());
        if let Some(grantee) = grantee {
            grantee.end = end;
        }
    }

    pub(super) fn take(&mut self, number: Option<u32>) -> Option<Grantee> {
        self.0.get_mut(number? as usize)?.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Grantee> {
        self.0.iter().flatten()
    }
}
