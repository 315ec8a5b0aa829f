//! Which of this host's interfaces a policy means by its names and globs, and which of these cannot be filtered.

use filter_common::bounds::INTERFACES_MAX;

use super::interfaces::{Interface, InterfaceError};

/// What a policy's names and globs mean on a host.
#[derive(Debug, Default)]
pub struct Choice {
    /// In their order, each once.
    pub interfaces: Vec<Interface>,
    pub left_out: Vec<LeftOut>,
}

/// What a policy says and the host does not have, or not as it could be filtered.
#[derive(Debug)]
pub struct LeftOut {
    /// `None` where a glob means none.
    pub interface: Option<String>,
    pub why: InterfaceError,
}

/// The interfaces that a policy's names and globs mean; none is left out.
pub fn choose(
    patterns: &[String],
    present: &[(Interface, Option<u32>)],
) -> Result<Vec<Interface>, InterfaceError> {
    let Choice { interfaces, left_out } = choose_most(patterns, present);
    match left_out.into_iter().next() {
        Some(LeftOut { why, .. }) => Err(why),
        None => Ok(interfaces),
    }
}

/// The interfaces that a policy's names and globs mean, as far as they are there and can be filtered together.
pub fn choose_most(patterns: &[String], present: &[(Interface, Option<u32>)]) -> Choice {
    let mut choice = Choice::default();
    for pattern in patterns {
        match matching(pattern, present) {
            Ok(found) => {
                for interface in found {
                    if !choice
                        .interfaces
                        .iter()
                        .any(|known| known.index == interface.index)
                    {
                        choice.interfaces.push(interface);
                    }
                }
            }
            Err(why) => choice.left_out.push(LeftOut {
                interface: (!is_glob(pattern)).then(|| pattern.clone()),
                why,
            }),
        }
    }
    let count = choice.interfaces.len();
    for interface in choice.interfaces.drain(count.min(INTERFACES_MAX as usize)..) {
        choice.left_out.push(LeftOut {
            interface: Some(interface.name),
            why: InterfaceError::TooMany(count),
        });
    }
    leave_out_stacked(&mut choice, present);
    // A member that the policy names as well is counted by itself.
    let named: Vec<u32> = choice
        .interfaces
        .iter()
        .map(|interface| interface.index)
        .collect();
    for interface in &mut choice.interfaces {
        interface.members.retain(|member| !named.contains(member));
    }
    choice
}

/// What comes in by the upper one is judged at the lower.
fn leave_out_stacked(choice: &mut Choice, present: &[(Interface, Option<u32>)]) {
    for (interface, lower) in present {
        let upper = choice
            .interfaces
            .iter()
            .position(|known| known.index == interface.index);
        let below = choice
            .interfaces
            .iter()
            .find(|known| Some(known.index) == *lower && known.index != interface.index);
        // A veth names its peer as what it is linked to; the two are no stack.
        let peer = present
            .iter()
            .any(|(other, link)| Some(other.index) == *lower && *link == Some(interface.index));
        if let (Some(upper), Some(lower), false) = (upper, below, peer) {
            let lower = lower.name.clone();
            let upper = choice.interfaces.remove(upper).name;
            choice.left_out.push(LeftOut {
                interface: Some(upper.clone()),
                why: InterfaceError::Stacked { upper, lower },
            });
        }
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn matching(pattern: &str, present: &[(Interface, Option<u32>)]) -> Result<Vec<Interface>, InterfaceError> {
    let all = present.iter().map(|(interface, _)| interface);
    if !is_glob(pattern) {
        let Some(interface) = all.clone().find(|interface| interface.name == pattern) else {
            let mut names: Vec<_> = all
                .filter(|interface| interface.ethernet)
                .map(|i| i.name.as_str())
                .collect();
            names.sort_unstable();
            let near = if names.is_empty() {
                String::new()
            } else {
                format!(" (there are: {})", names.join(", "))
            };
            return Err(InterfaceError::Missing {
                name: pattern.into(),
                near,
            });
        };
        if !interface.ethernet {
            return Err(InterfaceError::NotEthernet(pattern.into()));
        }
        return Ok(vec![interface.clone()]);
    }
    let glob = glob::Pattern::new(pattern)
        .map_err(|error| InterfaceError::Glob(pattern.into(), error.to_string()))?;
    // A glob means the Ethernet ones among those it matches: `*` is no fault on a host with a loopback.
    let found: Vec<_> = all
        .filter(|interface| interface.ethernet && glob.matches(&interface.name))
        .cloned()
        .collect();
    if found.is_empty() {
        Err(InterfaceError::NoMatch(pattern.into()))
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::interfaces::Hook;

    fn present(list: &[(&str, u32, bool, Option<u32>)]) -> Vec<(Interface, Option<u32>)> {
        list.iter()
            .map(|(name, index, ethernet, lower)| {
                let (name, index, ethernet) = (name.to_string(), *index, *ethernet);
                (
                    Interface {
                        name,
                        index,
                        ethernet,
                        mtu: 1500,
                        hook: Hook::default(),
                        members: Vec::new(),
                    },
                    *lower,
                )
            })
            .collect()
    }

    fn names(patterns: &[&str], present: &[(Interface, Option<u32>)]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
        choose(&patterns, present)
            .map(|chosen| chosen.into_iter().map(|interface| interface.name).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_globs_are_chosen_in_order_and_once() {
        let host = present(&[
            ("lo", 1, false, None),
            ("eth0", 2, true, None),
            ("eth1", 3, true, None),
        ]);
        assert_eq!(
            names(&["eth1", "eth*"], &host),
            Ok(vec!["eth1".into(), "eth0".into()])
        );
        assert_eq!(names(&["*"], &host), Ok(vec!["eth0".into(), "eth1".into()]));
    }

    #[test]
    fn what_is_missing_or_not_ethernet_is_named_with_the_fix() {
        let host = present(&[("lo", 1, false, None), ("eth0", 2, true, None)]);
        assert!(
            names(&["eth9"], &host)
                .unwrap_err()
                .contains("eth9 does not exist (there are: eth0)")
        );
        assert!(
            names(&["lo"], &host)
                .unwrap_err()
                .contains("lo is no Ethernet interface")
        );
        assert!(
            names(&["wl*"], &host)
                .unwrap_err()
                .contains("no interface matches wl*")
        );
    }

    #[test]
    fn a_stack_is_refused_and_a_veth_pair_is_not() {
        let host = present(&[("eth0", 2, true, None), ("eth0.100", 3, true, Some(2))]);
        assert!(
            names(&["eth*"], &host)
                .unwrap_err()
                .contains("eth0.100 is stacked on eth0")
        );
        let host = present(&[("a", 2, true, Some(3)), ("b", 3, true, Some(2))]);
        assert!(names(&["a", "b"], &host).is_ok());
    }

    #[test]
    fn members_of_a_bond_are_its_own_unless_they_are_named() {
        let mut host = present(&[
            ("eth0", 2, true, None),
            ("eth1", 3, true, None),
            ("bond0", 4, true, None),
        ]);
        host[2].0.members = vec![2, 3];
        let members = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
            choose(&patterns, &host).unwrap()[0].members.clone()
        };
        assert_eq!(members(&["bond0"]), [2, 3]);
        assert_eq!(members(&["bond0", "eth1"]), [2]);
    }

    #[test]
    fn what_can_be_filtered_is_chosen_beside_what_is_left_out() {
        let host = present(&[
            ("lo", 1, false, None),
            ("eth0", 2, true, None),
            ("eth0.100", 3, true, Some(2)),
        ]);
        let patterns = ["gone0", "eth*", "wl*"].map(String::from);
        let choice = choose_most(&patterns, &host);
        let chosen: Vec<_> = choice.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(chosen, ["eth0"]);
        let left_out: Vec<_> = choice
            .left_out
            .iter()
            .map(|left| left.interface.as_deref())
            .collect();
        assert_eq!(left_out, [Some("gone0"), None, Some("eth0.100")]);

        let many: Vec<(String, u32)> = (1..=66).map(|number| (format!("eth{number}"), number)).collect();
        let many: Vec<_> = many
            .iter()
            .map(|(name, number)| (name.as_str(), *number, true, None))
            .collect();
        let choice = choose_most(&["eth*".to_owned()], &present(&many));
        assert_eq!((choice.interfaces.len(), choice.left_out.len()), (64, 2));
        assert_eq!(choice.left_out[0].interface.as_deref(), Some("eth65"));
    }
}
