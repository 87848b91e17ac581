// SPDX-License-Identifier: Apache-2.0
//! Platforms of nodes as listings show them: fixed ones with `*`, then the others; long lists by groups.

use polyarch_oci::Platform;

/// How many groups a short list has.
const GROUPS: usize = 4;

/// What most people look for, in this order.
const MAJOR: [&str; 7] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/mips64",
];

/// Returns each platform once, those that were fixed first and with a `*`.
pub fn marked(fixed: &[Platform], found: &[Platform]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut texts = Vec::new();
    let fixed = fixed.iter().map(|platform| (platform, "*"));
    for (platform, mark) in fixed.chain(found.iter().map(|platform| (platform, ""))) {
        let platform = platform.clone().normalized();
        if !seen.contains(&platform) {
            texts.push(format!("{platform}{mark}"));
            seen.push(platform);
        }
    }
    texts
}

/// Shortens a list of marked platforms to four groups and a count of what is left.
pub fn shortened(platforms: &[String]) -> String {
    let group_of = |text: &str| {
        let name = text.trim_end_matches('*');
        let mut parts = name.splitn(3, '/');
        match (parts.next(), parts.next()) {
            (Some(os), Some(architecture)) => format!("{os}/{architecture}"),
            _ => name.to_owned(),
        }
    };
    let members = |group: &str| platforms.iter().filter(|text| group_of(text) == group).collect::<Vec<_>>();
    let mut groups: Vec<(String, Vec<&String>)> = MAJOR
        .iter()
        .map(|group| ((*group).to_owned(), members(group)))
        .filter(|(_, members)| !members.is_empty())
        .take(GROUPS)
        .collect();
    if groups.len() < GROUPS {
        let mut others: Vec<String> = platforms.iter().map(|text| group_of(text)).collect();
        others.sort();
        others.dedup();
        others.retain(|group| !MAJOR.contains(&group.as_str()));
        let room = GROUPS - groups.len();
        groups.extend(others.into_iter().take(room).map(|group| (group.clone(), members(&group))));
    }
    let shown: usize = groups.iter().map(|(_, members)| members.len()).sum();
    let mut texts: Vec<String> = groups
        .iter()
        .map(|(group, members)| match members.as_slice() {
            [only] => (*only).clone(),
            several => {
                let mark = if several.iter().any(|text| text.ends_with('*')) { "*" } else { "" };
                format!("{group}{mark} (+{})", several.len())
            }
        })
        .collect();
    if shown < platforms.len() {
        texts.push(format!("({} more)", platforms.len() - shown));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_shortened_by_groups() {
        let table = [
            (
                "linux/arm64* linux/amd64 linux/amd64/v2 linux/riscv64 linux/ppc64le linux/s390x linux/386 \
                 linux/mips64le linux/mips64 linux/arm/v7 linux/arm/v6",
                "linux/amd64 (+2), linux/arm64*, linux/arm (+2), linux/ppc64le, (5 more)",
            ),
            ("linux/riscv64*", "linux/riscv64*"),
            ("linux/amd64 linux/386", "linux/amd64, linux/386"),
            ("linux/arm64 linux/arm/v7 linux/arm/v6", "linux/arm64, linux/arm (+2)"),
            (
                "darwin/arm64* linux/arm64* linux/arm/v5* linux/arm/v6* linux/arm/v7* windows/arm64*",
                "linux/arm64*, linux/arm* (+3), darwin/arm64*, windows/arm64*",
            ),
            (
                "linux/arm64 linux/arm/v7 linux/arm/v6 linux/mips64le/softfloat linux/mips64le/hardfloat",
                "linux/arm64, linux/arm (+2), linux/mips64le (+2)",
            ),
            ("", ""),
        ];
        for (platforms, expected) in table {
            let platforms: Vec<String> = platforms.split_whitespace().map(str::to_owned).collect();
            assert_eq!(shortened(&platforms), expected);
        }
    }

    #[test]
    fn fixed_platforms_come_first_and_once() {
        let list = |text: &str| Platform::parse_list(text).unwrap();
        let marked = marked(&list("linux/arm64"), &list("linux/amd64,linux/arm64/v8,linux/arm/v7"));
        assert_eq!(marked, ["linux/arm64*", "linux/amd64", "linux/arm/v7"]);
    }
}
