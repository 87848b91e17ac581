// SPDX-License-Identifier: Apache-2.0
//! Layers, and the instructions that made them (image-spec, config.md, `history`).

use super::documents::{Entry, Step};
use super::shown::visible;

/// The most lines that are shown of one image.
const MAX_STEPS: usize = 200;

/// A line of an image's making.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    /// The first word of the instruction, such as `RUN`; empty when it isn't known.
    pub(super) keyword: String,
    /// The rest.
    pub(super) text: String,
    /// Which layer it made, from 0; `None` for an instruction that made none.
    pub(super) layer: Option<usize>,
}

/// What is known of an image's making.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Making {
    pub(super) lines: Vec<Made>,
    /// How many lines are left out.
    pub(super) omitted: usize,
    /// The history tells of as many layers as there are.
    pub(super) is_told: bool,
}

/// Puts layers and history together. A history that tells of more or fewer layers can't say which is which: then the
/// layers stand alone.
pub(super) fn making(history: &[Step], layers: &[Entry]) -> Making {
    let told = history.iter().filter(|step| !step.empty_layer).count();
    let is_told = !history.is_empty() && told == layers.len();
    let lines: Vec<Made> = if is_told {
        let mut next = 0..;
        let line = |step: &Step| {
            let (keyword, text) = instruction(&step.created_by, &step.comment);
            Made { keyword, text, layer: if step.empty_layer { None } else { next.next() } }
        };
        history.iter().take(MAX_STEPS).map(line).collect()
    } else {
        let line = |layer| Made { keyword: String::new(), text: String::new(), layer: Some(layer) };
        (0..layers.len().min(MAX_STEPS)).map(line).collect()
    };
    let all = if is_told { history.len() } else { layers.len() };
    Making { omitted: all - lines.len(), lines, is_told }
}

/// Undoes what builders write around an instruction; returns its first word and the rest.
fn instruction(created_by: &str, comment: &str) -> (String, String) {
    // Whatever comes after is cut anyway.
    let shown = visible(created_by);
    let text = shown.trim();
    let text = text.strip_suffix("# buildkit").unwrap_or(text).trim_end();
    if let Some(rest) = text.strip_prefix("/bin/sh -c #(nop)") {
        return split(rest.trim());
    }
    if let Some(command) = text.strip_prefix("/bin/sh -c ") {
        return ("RUN".to_owned(), command.trim().to_owned());
    }
    // `RUN |2 A=b C=d /bin/sh -c command`: the arguments of the build that were set.
    let command = text.strip_prefix("RUN ").map(str::trim);
    if let Some(command) = command {
        let after_arguments = if command.starts_with('|') {
            command.split_once("/bin/sh -c ").map(|parts| parts.1)
        } else {
            None
        };
        let command = after_arguments.or_else(|| command.strip_prefix("/bin/sh -c ")).unwrap_or(command);
        return ("RUN".to_owned(), command.trim().to_owned());
    }
    if text.is_empty() {
        return (String::new(), visible(comment));
    }
    split(text)
}

fn split(text: &str) -> (String, String) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let is_keyword =
        first.len() <= 12 && !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_uppercase());
    let rest = rest.trim();
    // Ports as Go writes a set of them.
    let ports =
        rest.strip_prefix("map[").and_then(|ports| ports.strip_suffix(']')).filter(|_| first == "EXPOSE");
    match is_keyword {
        true => (first.to_owned(), ports.map_or(rest.to_owned(), |ports| ports.replace(":{}", ""))),
        false => (String::new(), text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use polyarch_oci::Digest;

    use super::*;

    #[test]
    fn instructions_are_as_they_were_written() {
        for (created_by, keyword, text) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD", "[\"sh\"]"),
            ("/bin/sh -c #(nop) ADD file:abc in / ", "ADD", "file:abc in /"),
            ("/bin/sh -c apk add curl", "RUN", "apk add curl"),
            ("RUN /bin/sh -c apk add curl # buildkit", "RUN", "apk add curl"),
            ("RUN |1 A=b /bin/sh -c make # buildkit", "RUN", "make"),
            ("COPY a /b # buildkit", "COPY", "a /b"),
            ("ENV A=b", "ENV", "A=b"),
            ("EXPOSE map[8080/tcp:{} 80/udp:{}]", "EXPOSE", "8080/tcp 80/udp"),
            ("debian:12", "", "debian:12"),
            ("", "", "a remark"),
        ] {
            let found = instruction(created_by, "a remark");
            assert_eq!(found, (keyword.to_owned(), text.to_owned()), "{created_by}");
        }
    }

    #[test]
    fn a_history_that_does_not_fit_is_not_believed() {
        let layer: Entry = serde_json::from_str(&format!("{{\"digest\":\"{}\"}}", Digest::of("x"))).unwrap();
        let step = |empty_layer| Step { created_by: "RUN x".to_owned(), empty_layer, ..Step::default() };
        let made = making(&[step(false), step(true)], std::slice::from_ref(&layer));
        assert!(made.is_told);
        assert_eq!(made.lines.iter().map(|line| line.layer).collect::<Vec<_>>(), [Some(0), None]);
        let made = making(&[step(true)], &[layer]);
        assert!(!made.is_told && made.lines.len() == 1 && made.lines[0].keyword.is_empty());
    }
}
