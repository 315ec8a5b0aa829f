//! What is looked at and how: view, order, filter, pause; and what each key does about it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::answer::Top;
use super::table::columns;
use crate::cli::exit::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Verdicts,
    Listed,
    Refused,
    Buckets,
}

impl View {
    pub(super) const ALL: [View; 5] = [
        View::Overview,
        View::Verdicts,
        View::Listed,
        View::Refused,
        View::Buckets,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Overview => "Overview",
            View::Verdicts => "Verdicts",
            View::Listed => "Listed",
            View::Refused => "Refused",
            View::Buckets => "Buckets",
        }
    }
}

/// Longer ones match nothing.
const FILTER_MAX: usize = 64;
const PAGE_ROWS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Quit,
}

pub(super) struct State {
    pub(super) top: Top,
    /// Why the last answer did not come.
    pub(super) fault: Option<String>,
    pub(super) view: View,
    /// By view: the column, and whether its order is turned.
    orders: [(usize, bool); 5],
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// The first row that is shown; drawing keeps it within the rows there are.
    pub(super) first: usize,
    /// Columns of the view that fit: drawing says how many.
    pub(super) columns: usize,
}

impl State {
    pub(super) fn new(top: Top) -> State {
        State {
            top,
            fault: None,
            view: View::Overview,
            orders: View::ALL.map(|view| (columns(view).1, false)),
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            first: 0,
            columns: 1,
        }
    }

    /// While it is paused, what stands there stays.
    pub(super) fn take(&mut self, told: Result<Top, Failure>) {
        match told {
            Ok(top) => {
                self.fault = None;
                if !self.paused {
                    self.top = top;
                }
            }
            Err(failure) => self.fault = Some(failure.text),
        }
    }

    pub(super) fn order(&self, view: View) -> (usize, bool) {
        self.orders[view as usize]
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                _ => Next::Go,
            };
        }
        if self.typing {
            self.typed(key.code);
            return Next::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(digit @ '1'..='5') => self.show(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.show(self.view as usize + 1),
            KeyCode::BackTab | KeyCode::Left => self.show(self.view as usize + View::ALL.len() - 1),
            KeyCode::Char('s') => self.sort(1),
            KeyCode::Char('S') => self.sort(self.columns - 1),
            KeyCode::Char('r') => {
                let (_, turned) = &mut self.orders[self.view as usize];
                *turned = !*turned;
            }
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first += PAGE_ROWS,
            KeyCode::PageUp => self.first = self.first.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = usize::MAX,
            _ => {}
        }
        Next::Go
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) if self.filter.len() < FILTER_MAX => self.filter.push(character),
            _ => {}
        }
        self.first = 0;
    }

    fn show(&mut self, number: usize) {
        self.view = View::ALL[number % View::ALL.len()];
        self.first = 0;
    }

    fn sort(&mut self, by: usize) {
        let (column, _) = self.order(self.view);
        self.orders[self.view as usize] = ((column + by) % self.columns, false);
    }
}
