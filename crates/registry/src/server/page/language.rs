// SPDX-License-Identifier: Apache-2.0
//! The reader's language: as the address says, else as the browser does.

use super::words::{CHINESE, ENGLISH, Words};

/// A language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// Reads the parameter `lang`.
    pub(super) fn parse(text: &str) -> Option<Language> {
        match text {
            "en" => Some(Language::English),
            "zh" => Some(Language::Chinese),
            _ => None,
        }
    }

    /// Reads `Accept-Language` (RFC 9110, 12.5.4): the one of ours that is wanted most, the first of several.
    pub(super) fn accepted(header: &str) -> Language {
        let mut best = (0, Language::English);
        // Browsers send a handful.
        for part in header.split(',').take(50) {
            let mut parameters = part.split(';').map(str::trim);
            let range = parameters.next().unwrap_or_default();
            let primary = range.split('-').next().unwrap_or_default().to_ascii_lowercase();
            let Some(language) = Language::parse(&primary) else { continue };
            let weight = parameters.find_map(|parameter| parameter.strip_prefix("q=")).unwrap_or("1");
            // In thousandths, of which there are at most a thousand.
            let weight = weight.parse::<f32>().map_or(0, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Returns the language's tag (BCP 47).
    pub(super) fn code(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh",
        }
    }

    /// Returns what the language calls itself.
    pub(super) fn name(self) -> &'static str {
        match self {
            Language::English => "English",
            Language::Chinese => "中文",
        }
    }

    /// Returns the other one.
    pub(super) fn other(self) -> Language {
        match self {
            Language::English => Language::Chinese,
            Language::Chinese => Language::English,
        }
    }

    /// Returns its words.
    pub(super) fn words(self) -> &'static Words {
        match self {
            Language::English => &ENGLISH,
            Language::Chinese => &CHINESE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_wanted_most_is_taken() {
        for (header, language) in [
            ("", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-GB,en;q=0.9,zh;q=0.8", Language::English),
            ("fr-FR, zh;q=0.5, en;q=0.3", Language::Chinese),
            ("de", Language::English),
            ("ZH-Hant-TW", Language::Chinese),
            ("zh;q=0, en;q=0.1", Language::English),
            ("zh;q=x", Language::English),
            ("zh;q=NaN", Language::English),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }
}
