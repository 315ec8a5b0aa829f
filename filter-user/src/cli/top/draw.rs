//! The page: head, views, tables, help. Draws what `State` says, and decides nothing but what fits.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table};

use super::state::{State, View};
use super::table::{self, Cell, columns, cut, fitting, short, whole};

const KEYS: [(&str, &str); 9] = [
    ("1-5, Tab", "choose a view"),
    ("s, S", "sort by the next, the previous column"),
    ("r", "turn the order"),
    ("/", "filter rows by a text; Enter keeps, Esc clears"),
    ("p, Space", "pause and go on"),
    ("Up, Down, PgUp, PgDn", "scroll; also j and k, Home and End"),
    ("?, h", "this help"),
    ("Esc", "leave help and filter"),
    ("q, Ctrl-C", "quit"),
];

/// How things look: without colours a word and a reversed line still tell them apart.
#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn of(self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn word(self, word: &str) -> Style {
        match word {
            "drop" => self.of(Color::Red),
            "observe" => self.of(Color::Yellow),
            "pass" => self.of(Color::Green),
            _ => Style::new(),
        }
    }
}

pub(super) fn page(frame: &mut Frame<'_>, state: &mut State, colour: bool) {
    let paint = Paint { colour };
    let [head, rates, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    title(frame, head, state);
    frame.render_widget(Paragraph::new(summary(state, paint)), rates);
    frame.render_widget(Paragraph::new(views(state)), tabs);
    match state.view {
        View::Overview => overview(frame, body, state, paint),
        view => {
            let rows = table::rows(view, &state.top, &state.filter, state.order(view));
            let room = usize::from(body.height.saturating_sub(1)).max(1);
            state.first = state.first.min(rows.len().saturating_sub(room));
            state.columns = fitting(columns(view).0, body.width).len();
            draw_table(frame, body, view, &rows[state.first..], state, paint);
        }
    }
    frame.render_widget(Paragraph::new(footer(state, paint)), foot);
    if state.help {
        help(frame);
    }
}

fn title(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let top = &state.top;
    let left = format!(
        "keyfence top  instance {}, {}, generation {}",
        top.instance,
        top.mode.as_deref().unwrap_or("mode unknown"),
        top.generation
    );
    let time = top.at.get(11..19).unwrap_or_default();
    let right = match state.paused {
        true => format!("PAUSED {time} UTC"),
        false => format!("{time} UTC"),
    };
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(left).style(style), area);
    let width = (right.chars().count() as u16).min(area.width);
    let corner = Rect {
        x: area.right() - width,
        width,
        ..area
    };
    frame.render_widget(Paragraph::new(right).style(style), corner);
}

/// What passes and is refused in all; and before that, what is wrong.
fn summary(state: &State, paint: Paint) -> Line<'static> {
    let wrong = state.fault.as_ref().or(state.top.not_ready.first());
    let wrong = wrong.or(state
        .top
        .buckets_error
        .as_ref()
        .filter(|_| state.view == View::Buckets));
    if let Some(wrong) = wrong {
        return Line::styled(
            format!("! {wrong}"),
            paint.of(Color::Red).add_modifier(Modifier::BOLD),
        );
    }
    let rate = |word: &'static str, verdict: &'static str| {
        let rate = short(state.top.rate(verdict));
        [
            Span::raw(format!("{word} ")),
            Span::styled(format!("{rate}/s   "), paint.word(verdict)),
        ]
    };
    let mut spans = Vec::new();
    spans.extend(rate("passed", "pass"));
    spans.extend(rate("dropped", "drop"));
    spans.extend(rate("observed", "observe"));
    spans.push(Span::raw(format!(
        "refused sources {}",
        whole(state.top.sources_in_all)
    )));
    Line::from(spans)
}

fn views(state: &State) -> Line<'static> {
    let spans = View::ALL.into_iter().enumerate().flat_map(|(at, view)| {
        let style = match view == state.view {
            true => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            false => Style::new(),
        };
        [
            Span::styled(format!(" {} {} ", at + 1, view.title()), style),
            Span::raw(" "),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn footer(state: &State, paint: Paint) -> Line<'static> {
    if state.typing {
        return Line::styled(format!("filter: {}_", state.filter), paint.of(Color::Yellow));
    }
    let keys = "q quit  1-5 view  s sort  r turn  / filter  p pause  ? help";
    match state.filter.is_empty() {
        true => Line::raw(keys),
        false => Line::from(vec![
            Span::styled(format!("filter: {}   ", state.filter), paint.of(Color::Yellow)),
            Span::raw(keys),
        ]),
    }
}

/// A part of each view, one above the other.
fn overview(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let views = [View::Verdicts, View::Listed, View::Refused, View::Buckets];
    let areas: [Rect; 4] = Layout::vertical([Constraint::Fill(1); 4]).areas(area);
    for (view, area) in views.into_iter().zip(areas) {
        let rows = table::rows(view, &state.top, &state.filter, state.order(view));
        draw_table(frame, area, view, &rows, state, paint);
    }
}

fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    view: View,
    rows: &[Vec<Cell>],
    state: &State,
    paint: Paint,
) {
    let (columns, _) = columns(view);
    let widths = fitting(columns, area.width);
    let (sorted, turned) = state.order(view);
    let right = |at: usize| rows.first().is_some_and(|row| !matches!(row[at], Cell::Text(_)));
    let aligned = |at: usize, text: String, style: Style| {
        let side = if right(at) {
            Alignment::Right
        } else {
            Alignment::Left
        };
        Line::styled(cut(text, widths[at]), style).alignment(side)
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let header = columns.iter().take(widths.len()).enumerate().map(|(at, column)| {
        let turned = if turned { "^" } else { "" };
        match at == sorted {
            false => aligned(at, column.title.to_owned(), bold),
            true => aligned(
                at,
                format!("{}{turned}", column.title),
                bold.add_modifier(Modifier::UNDERLINED),
            ),
        }
    });
    let shown = rows.iter().take(usize::from(area.height)).map(|row| {
        let cells = row.iter().take(widths.len()).enumerate().map(|(at, cell)| {
            let style = match cell {
                Cell::Text(word) => paint.word(word),
                Cell::Share(share) if *share < 0.1 => paint.of(Color::Red),
                Cell::Share(share) if *share < 0.5 => paint.of(Color::Yellow),
                _ => Style::new(),
            };
            aligned(at, cell.shown(), style)
        });
        Row::new(cells.collect::<Vec<_>>())
    });
    let table = Table::new(shown, widths.iter().map(|width| Constraint::Length(*width)));
    frame.render_widget(table.header(Row::new(header.collect::<Vec<_>>())), area);
    if rows.is_empty() && area.height > 1 {
        let below = Rect {
            y: area.y + 1,
            height: 1,
            ..area
        };
        frame.render_widget(Paragraph::new(nothing(view, state)), below);
    }
}

fn nothing(view: View, state: &State) -> &'static str {
    match view {
        _ if !state.filter.is_empty() => "nothing matches the filter",
        View::Overview | View::Verdicts => "no packet has been judged yet",
        View::Listed => "no listed client sends anything now",
        View::Refused => "nobody has been refused in this interval",
        View::Buckets => "nobody who sends now has a limit",
    }
}

/// Of the help: what fits 80 columns beside the border, and beside the keys.
const HELP_WIDTH: u16 = 78;

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, what)| Line::raw(format!(" {key:<21} {what}")))
        .collect();
    let (width, height) = (
        HELP_WIDTH.min(area.width),
        (lines.len() as u16 + 2).min(area.height),
    );
    let middle = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, middle);
    let block = Block::new().borders(Borders::ALL).title(" Keys ");
    frame.render_widget(Paragraph::new(lines).block(block), middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_80_columns() {
        for (key, what) in KEYS {
            let line = format!(" {key:<21} {what}");
            assert!(line.chars().count() + 2 <= usize::from(HELP_WIDTH), "{line}");
        }
    }
}
