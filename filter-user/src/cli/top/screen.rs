//! The terminal while it is ours: raw, on its other screen, and given back whatever happens.

use ratatui::DefaultTerminal;

use super::draw;
use super::state::State;
use crate::cli::exit::{Exit, Failure};

pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// A panic gives the terminal back before it is told: that is part of `try_init`.
    pub(super) fn open() -> Result<Screen, Failure> {
        let failed = |error| Failure::new(Exit::Failed, format!("the terminal cannot be used: {error}"));
        ratatui::try_init().map(Screen).map_err(failed)
    }

    pub(super) fn draw(&mut self, state: &mut State, colour: bool) -> std::io::Result<()> {
        self.0.draw(|frame| draw::page(frame, state, colour)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
