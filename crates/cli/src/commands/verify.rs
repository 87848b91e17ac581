// SPDX-License-Identifier: Apache-2.0
//! `polyarch verify`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use polyarch_build::BuildError;
use polyarch_build::fetch::Shown;
use polyarch_build::layer_contents::Reading;
use polyarch_contents::{Finding, Severity};
use polyarch_images::verify::{PlatformReport, Report, VerifyOptions, verify};
use polyarch_images::verify_exec::execute_each;
use polyarch_images::{FindOptions, ImageSource, Lookup, find};
use polyarch_oci::Platform;
use polyarch_oci::media_type::is_index;

use super::build::platforms::named_platforms;
use crate::session::Session;
use crate::transfer::{Direction, TransferDisplay};
use crate::visible_text::visible_line;
use crate::{CommandError, ExitCode};

/// How many findings of one rule are shown.
const SHOWN_FINDINGS: usize = 5;

/// Prove that each platform of an image is what it claims to be
///
/// Documents, digests, sizes and diff ids are checked, and every program and library by its ELF header. The
/// image stands in the store or a registry, an OCI layout (oci-layout://DIR:TAG) or an archive
/// (docker-archive:FILE, oci-archive:FILE). Ends with 1 when something is wrong.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only these platforms [default: all]
    #[arg(long, value_name = "PLATFORM[,PLATFORM]")]
    platform: Vec<String>,
    /// Execute each platform's program too, with `--version` and for 10 seconds at most
    #[arg(long)]
    exec: bool,
    /// Ask the registry what the name means, also when the store has it
    #[arg(long)]
    pull: bool,
    /// Look at every file again, also of layers that are the same as last time
    #[arg(long)]
    no_cache: bool,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line per platform, and what is wrong
    Text,
    /// One JSON array
    Json,
}

/// Runs the command.
///
/// # Errors
/// When an image can't be found, or has none of the platforms.
pub fn run(args: &VerifyArgs, session: &Session) -> Result<u8, CommandError> {
    let platforms = named_platforms(&args.platform, &session.environment)?;
    let sources: Vec<ImageSource> =
        args.images.iter().map(|text| ImageSource::parse(text)).collect::<Result<_, BuildError>>()?;
    let settings = session.settings()?;
    let engine = if args.exec { session.open(&settings)? } else { session.open_for_documents(&settings)? };
    let mut reports = Vec::new();
    let mut failure: Option<CommandError> = None;
    for source in &sources {
        match prove(args, session, &engine, source, &platforms) {
            Ok(report) => {
                if args.format == Format::Text {
                    session.printer.data(&render(&report))?;
                }
                reports.push(report);
            }
            // The others are looked at all the same.
            Err(error) => match &failure {
                None => failure = Some(error),
                Some(_) => session.printer.message(&error.render()),
            },
        }
    }
    if args.format == Format::Json {
        let text = serde_json::to_string_pretty(&reports)
            .expect("names, digests, numbers and sentences are always JSON");
        session.printer.data(&(text + "\n"))?;
    }
    match failure {
        Some(error) => Err(error),
        None if reports.iter().all(|report| report.ok) => Ok(ExitCode::Done.number()),
        None => Ok(ExitCode::Step.number()),
    }
}

fn prove(
    args: &VerifyArgs,
    session: &Session,
    engine: &crate::engine::Engine,
    source: &ImageSource,
    platforms: &[Platform],
) -> Result<Report, CommandError> {
    let lookup = if args.pull { Lookup::RegistryOnly } else { Lookup::StoreThenRegistry };
    let options = VerifyOptions {
        platforms: platforms.to_vec(),
        reading: if args.no_cache { Reading::Fresh } else { Reading::Hashed },
    };
    let (progress, display) = TransferDisplay::start(session, Direction::Pull, args.format == Format::Json);
    let report = engine.perform(|services| async move {
        let vertex = progress.begin("verify", format!("verifying {source}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let image = find(&services, source, &FindOptions::new(lookup), &shown).await?;
        let mut report = verify(&image, &options).await?;
        if args.exec {
            execute_each(&image, &mut report).await?;
        }
        vertex.done();
        Ok(report)
    });
    display.finish();
    Ok(report?)
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    let kind = if is_index(&report.media_type) { "index" } else { "manifest" };
    // Writing to a String can't fail, here and below.
    let _ = writeln!(text, "{}", visible_line(report.name.as_bytes()));
    let _ = writeln!(text, "{kind} {}", report.digest);
    write_findings(&mut text, &report.findings, "");
    let width = report.platforms.iter().map(|it| it.platform.len()).max().unwrap_or(0);
    for platform in &report.platforms {
        let name = visible_line(platform.platform.as_bytes());
        let _ = writeln!(text, "  {name:width$}  {}  {}", platform.digest, summary(platform));
        write_findings(&mut text, &platform.findings, "    ");
    }
    text
}

fn summary(platform: &PlatformReport) -> String {
    let count = |severity: Severity, word: &str| {
        let number = platform.findings.iter().filter(|finding| finding.severity == severity).count();
        (number > 0).then(|| counted(number, word))
    };
    let verdict = if platform.ok { Some("ok".to_owned()) } else { None };
    let counts = [verdict, count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let words: Vec<String> = counts.into_iter().flatten().collect();
    format!(
        "{} ({}, {}, {})",
        words.join(", "),
        counted(platform.layers, "layer"),
        counted(platform.files, "file"),
        counted(platform.programs, "program")
    )
}

fn counted(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// Writes findings, of each rule a few.
fn write_findings(text: &mut String, findings: &[Finding], indent: &str) {
    let mut done: Vec<(Severity, &str)> = Vec::new();
    for first in findings {
        let group = (first.severity, first.rule);
        if done.contains(&group) {
            continue;
        }
        done.push(group);
        let all: Vec<&Finding> =
            findings.iter().filter(|finding| (finding.severity, finding.rule) == group).collect();
        let word = match first.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let shown = if first.severity == Severity::Note { 1 } else { SHOWN_FINDINGS };
        for finding in all.iter().take(shown) {
            let path = finding.path.as_ref().map(|path| format!("{path} ")).unwrap_or_default();
            let layer = finding.layer.map(|layer| format!(", layer {}", layer + 1)).unwrap_or_default();
            let line = format!("{path}{} [{}{layer}]", finding.message, finding.rule);
            let _ = writeln!(text, "{indent}{word}: {}", visible_line(line.as_bytes()));
        }
        if let more @ 1.. = all.len().saturating_sub(shown) {
            let _ = writeln!(text, "{indent}{word}: {more} more like this [{}]", first.rule);
        }
    }
}
