// SPDX-License-Identifier: Apache-2.0
//! Colours of the live view, with `NO_COLOR` and `BUILDKIT_COLORS` honoured.

use polyarch_oci::platform::did_you_mean;

use crate::Environment;

/// One colour of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// The terminal's own.
    Default,
    /// One of the sixteen named colours, by its SGR number (ECMA-48, 8.3.117).
    Named(u8),
    /// Red, green and blue.
    Rgb(u8, u8, u8),
}

/// The colours by what they mean; `None` anywhere means no colours at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colors {
    /// Whether any colour is used.
    pub is_enabled: bool,
    /// Steps that are done.
    pub run: Color,
    /// Steps that were canceled.
    pub cancel: Color,
    /// Warnings.
    pub warning: Color,
    /// Steps that failed.
    pub error: Color,
}

impl Default for Colors {
    fn default() -> Colors {
        Colors {
            is_enabled: true,
            run: Color::Named(34),
            cancel: Color::Named(33),
            warning: Color::Named(33),
            error: Color::Named(31),
        }
    }
}

const NAMES: [(&str, u8); 16] = [
    ("black", 30),
    ("red", 31),
    ("green", 32),
    ("yellow", 33),
    ("blue", 34),
    ("magenta", 35),
    ("cyan", 36),
    ("white", 37),
    ("light-black", 90),
    ("light-red", 91),
    ("light-green", 92),
    ("light-yellow", 93),
    ("light-blue", 94),
    ("light-magenta", 95),
    ("light-cyan", 96),
    ("light-white", 97),
];

impl Colors {
    /// Decides by the environment; also returns what was wrong with `BUILDKIT_COLORS`.
    pub fn from_environment(environment: &Environment) -> (Colors, Vec<String>) {
        // no-color.org: any value that is not empty switches colours off.
        let is_plain = environment.text("NO_COLOR").is_some() || environment.text("TERM") == Some("dumb");
        let mut colors = Colors { is_enabled: !is_plain, ..Colors::default() };
        let mut problems = Vec::new();
        for entry in environment.text("BUILDKIT_COLORS").unwrap_or_default().split(':') {
            if entry.is_empty() {
                continue;
            }
            if let Err(problem) = colors.set(entry) {
                problems.push(format!("BUILDKIT_COLORS: {problem}"));
            }
        }
        (colors, problems)
    }

    /// Wraps text in a colour.
    pub fn paint(&self, color: Color, text: &str) -> String {
        match color {
            _ if !self.is_enabled => text.to_owned(),
            Color::Default => text.to_owned(),
            Color::Named(number) => format!("\x1b[{number}m{text}\x1b[0m"),
            Color::Rgb(r, g, b) => format!("\x1b[38;2;{r};{g};{b}m{text}\x1b[0m"),
        }
    }

    /// Makes text fainter than the rest.
    pub fn faint(&self, text: &str) -> String {
        if self.is_enabled { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn set(&mut self, entry: &str) -> Result<(), String> {
        let (key, value) = entry.split_once('=').ok_or_else(|| format!("{entry:?} is not KEY=COLOR"))?;
        let color = parse_color(value)?;
        match key {
            "run" => self.run = color,
            "cancel" => self.cancel = color,
            "warning" => self.warning = color,
            "error" => self.error = color,
            _ => return Err(format!("unknown key {key:?} (run, cancel, warning, error)")),
        }
        Ok(())
    }
}

fn parse_color(value: &str) -> Result<Color, String> {
    let word = value.to_ascii_lowercase();
    if word == "default" {
        return Ok(Color::Default);
    }
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == word) {
        return Ok(Color::Named(*number));
    }
    let parts: Vec<Option<u8>> = value.split(',').map(|part| part.parse().ok()).collect();
    if let [Some(r), Some(g), Some(b)] = parts[..] {
        return Ok(Color::Rgb(r, g, b));
    }
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    Err(format!("{value:?} is neither a colour nor RED,GREEN,BLUE{}", did_you_mean(value, &names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colors(variables: &[(&str, &str)]) -> (Colors, Vec<String>) {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Colors::from_environment(&Environment { variables, ..Environment::default() })
    }

    #[test]
    fn no_color_wins_over_everything() {
        let (colors, _) = colors(&[("NO_COLOR", "1"), ("BUILDKIT_COLORS", "run=red")]);
        assert_eq!(colors.paint(colors.run, "x"), "x");
        assert_eq!(colors.faint("x"), "x");
    }

    #[test]
    fn each_meaning_can_have_another_color() {
        let (colors, problems) = colors(&[("BUILDKIT_COLORS", "run=light-cyan:error=123,20,245")]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(colors.paint(colors.run, "x"), "\x1b[96mx\x1b[0m");
        assert_eq!(colors.paint(colors.error, "x"), "\x1b[38;2;123;20;245mx\x1b[0m");
        assert_eq!(colors.cancel, Color::Named(33));
    }

    #[test]
    fn mistakes_are_told_and_do_no_harm() {
        let (colors, problems) = colors(&[("BUILDKIT_COLORS", "run=gren:walk=red:x:error=1,2,300")]);
        assert_eq!(colors, Colors::default());
        assert_eq!(problems.len(), 4);
        assert!(problems[0].contains("did you mean green?"), "{problems:?}");
    }
}
