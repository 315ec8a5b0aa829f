//! Lists: pages in the order of credentials, with filters; a page looks at a bounded number of bindings.

use ipnet::IpNet;

use super::Bindings;
use super::memory::Shelf;
use super::model::allowance::PolicyView;
use super::model::content::Services;
use super::model::owned::Credential;
use super::model::row::Row;
use super::model::view::state;
use super::requests::{Answer, BindingView, LIST_ITEMS_MAX, List, Page};

/// Bindings that one page looks at: filters that few pass give short pages, not long waits.
const LOOKED_AT_MAX: usize = 65_536;
/// Between two slices other tasks run.
const SLICE: usize = 1_024;

impl Bindings {
    pub async fn list(&self, list: List) -> Answer<Page> {
        let shared = &self.shared;
        let limit = list.limit.unwrap_or(LIST_ITEMS_MAX).clamp(1, LIST_ITEMS_MAX);
        // Before the first row is read: a watch from here misses nothing.
        let mut page = Page {
            revision: *shared.published.borrow(),
            store: shared.store_id.load().as_ref().clone(),
            items: Vec::new(),
            next: None,
        };
        let after = list.after.as_deref().unwrap_or_default();
        let (from_publisher, from_credential) = match &list.publisher {
            Some(publisher) => (publisher.as_str(), after),
            None => after.split_once('/').unwrap_or_default(),
        };
        let mut looked_at = 0;
        for shelf in shared.memory.shelves() {
            let wanted = list
                .publisher
                .as_deref()
                .is_none_or(|name| *shelf.publisher == *name);
            if !wanted || *shelf.publisher < *from_publisher {
                continue;
            }
            let mut after: Option<Credential> = None;
            if *shelf.publisher == *from_publisher && !from_credential.is_empty() {
                after = Some(Credential::new(from_publisher, from_credential));
            }
            loop {
                let rows = shelf.after(after.as_deref(), SLICE);
                let Some((last, _)) = rows.last() else { break };
                let last = last.clone();
                for (credential, row) in &rows {
                    if let Some(item) = self.item(&list, &shelf, credential, row) {
                        page.items.push(item);
                    }
                    if page.items.len() >= limit {
                        page.next = Some(place(&list, &shelf.publisher, credential));
                        return Ok(page);
                    }
                }
                looked_at += rows.len();
                if looked_at >= LOOKED_AT_MAX {
                    page.next = Some(place(&list, &shelf.publisher, &last));
                    return Ok(page);
                }
                after = Some(last);
                tokio::task::yield_now().await;
            }
        }
        Ok(page)
    }

    fn item(&self, list: &List, shelf: &Shelf, credential: &str, row: &Row) -> Option<BindingView> {
        let view = self.shared.view.load();
        if !passes(list, &view, shelf, row, self.shared.clock.now().boot_ms) {
            return None;
        }
        let item = self.shared.show(&shelf.publisher, credential, row);
        let unused = |since: jiff::Timestamp| item.last_seen.is_none_or(|seen| seen < since);
        list.unused_since.is_none_or(unused).then_some(item)
    }
}

fn place(list: &List, publisher: &str, credential: &str) -> String {
    match list.publisher {
        Some(_) => credential.to_owned(),
        None => format!("{publisher}/{credential}"),
    }
}

fn passes(list: &List, view: &PolicyView, shelf: &Shelf, row: &Row, now_boot_ms: i64) -> bool {
    let source_fits = |asked: &IpNet| {
        let overlaps = |source: &IpNet| source.contains(asked) || asked.contains(source);
        row.content.sources.iter().any(overlaps)
    };
    let service_fits = |asked: &String| match &row.content.services {
        Services::Named(names) => names.iter().any(|name| **name == **asked),
        Services::All => view.publisher(&shelf.publisher).is_some_and(|allowance| {
            let names = allowance.resolve(&row.content.services);
            names.is_some_and(|names| names.iter().any(|name| **name == **asked))
        }),
    };
    let ends_fit = |before: jiff::Timestamp| row.end.is_some_and(|end| end.wall_ms < before.as_millisecond());
    let state_fits = |asked| state(view, &shelf.publisher, shelf.facts(), row, now_boot_ms).0 == asked;
    list.source.as_ref().is_none_or(source_fits)
        && list.service.as_ref().is_none_or(service_fits)
        && list.ends_before.is_none_or(ends_fit)
        && list.state.is_none_or(state_fits)
}
