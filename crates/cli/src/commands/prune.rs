// SPDX-License-Identifier: Apache-2.0
//! `polyarch prune`: frees disk space, after showing what would go.

use std::io::{BufRead, Write as _};
use std::time::SystemTime;

use clap::{ArgAction, Args};
use polyarch_build::inventory::CacheKind;
use polyarch_build::{PrunePlan, PruneRequest};

use super::buildx_builder::{self, node_cache};
use super::cache_filters::read_filters;
use super::cache_rows::{CacheRow, pretty, rows_of, table};
use super::flag_values::{go_bool, parse_size};
use crate::CommandError;
use crate::progress::format::short_size as size;
use crate::session::Session;

/// Remove what builds have left in the store
///
/// Images that have a name stay. Without --all, a filter or a limit, so does what a build may use again. What is
/// of no use goes first, then what was not used for longest. Running builds are waited for, and lose nothing.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove everything that no named image needs
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    all: bool,
    /// Do not ask
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    force: bool,
    /// Remove only what matches: until=24h (not used for so long),
    /// type=regular|image|blob|record|exec.cachemount|temporary, type!=…, id=TEXT, description=TEXT, shared, private
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Keep this much of the cache: 10g, 500mb
    #[arg(long, value_name = "SIZE", value_parser = parse_size, visible_alias = "keep-storage")]
    reserved_space: Option<u64>,
    /// Make the cache no larger than this
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_used_space: Option<u64>,
    /// Make room until this much of the disk is free
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    min_free_space: Option<u64>,
    /// Show every piece with all that is known of it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    verbose: bool,
    /// Show what would go, and leave it
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(args: &PruneArgs, session: &Session) -> Result<(), CommandError> {
    prune(args, request(args)?, session)
}

/// The same for `buildx prune`: over all nodes of a builder.
pub fn run_buildx(args: &PruneArgs, builder: Option<&str>, session: &Session) -> Result<(), CommandError> {
    let Some(builder) = buildx_builder::of_build(builder, session)? else { return run(args, session) };
    let nodes = node_cache::remote_nodes(&builder)?;
    if nodes.is_empty() {
        return run(args, session);
    }
    if args.dry_run {
        return Err(CommandError::usage("a node can't say beforehand what would go: it knows no --dry-run")
            .with_hint(format!("see what there is: polyarch buildx du --builder {}", builder.name)));
    }
    let asked = node_cache::prune_request(
        args.all,
        &args.filter,
        [args.reserved_space, args.max_used_space, args.min_free_space],
    )?;
    let names: Vec<&str> = nodes.iter().map(|(node, _)| node.name.as_str()).collect();
    let what = format!("cache of {}", names.join(", "));
    if !args.force && !confirm(&what)? {
        return Err(CommandError::usage("nothing was removed").with_hint("--force removes without asking"));
    }
    let removed = node_cache::prune(&builder, &asked, session)?;
    session.printer.data(&render(&removed.rows, args.verbose))?;
    if let Some(failure) = removed.failure {
        return Err(failure);
    }
    if removed.is_local_meant { run(args, session) } else { Ok(()) }
}

/// The same for `image prune`: only blobs that no name reaches.
pub fn run_images(args: &PruneArgs, session: &Session) -> Result<(), CommandError> {
    let mut request = request(args)?;
    // Whatever else was asked for, an image's blobs are all that is meant.
    request.filter.kinds = Some(match request.filter.kinds {
        Some(kinds) if !kinds.contains(&CacheKind::Blob) => Vec::new(),
        _ => vec![CacheKind::Blob],
    });
    prune(args, request, session)
}

fn request(args: &PruneArgs) -> Result<PruneRequest, CommandError> {
    let limits = [args.reserved_space, args.max_used_space, args.min_free_space];
    Ok(PruneRequest {
        all: args.all || !args.filter.is_empty() || limits.iter().any(Option::is_some),
        filter: read_filters(&args.filter).map_err(CommandError::usage)?,
        reserved_bytes: args.reserved_space,
        max_used_bytes: args.max_used_space,
        min_free_bytes: args.min_free_space,
    })
}

fn prune(args: &PruneArgs, request: PruneRequest, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let engine = session.open(&settings)?;
    let plan = engine.plan_prune(&request)?;
    if args.dry_run {
        return session.printer.data(&render(&rows_of(&plan.items), args.verbose));
    }
    // What clients of `node serve` sent is kept for their next build, and goes when all that is unused goes.
    let limits = [request.reserved_bytes, request.max_used_bytes, request.min_free_bytes];
    let takes_contexts = args.all && args.filter.is_empty() && limits.iter().all(Option::is_none);
    if plan.items.is_empty() {
        if takes_contexts {
            engine.remove_kept_contexts()?;
        }
        session.printer.message(&summary(&plan, false));
        return session.printer.data(&render(&[], false));
    }
    if !args.force {
        session.printer.message(&summary(&plan, args.verbose));
        if !confirm(&size(plan.size_bytes()))? {
            return Err(
                CommandError::usage("nothing was removed").with_hint("--force removes without asking")
            );
        }
    }
    let removed = engine.prune(&request, &plan, |holders| {
        session.printer.message(&format!("waiting for those who use the store{holders}\n"));
    })?;
    if takes_contexts {
        engine.remove_kept_contexts()?;
    }
    session.printer.data(&render(&rows_of(&removed.items), args.verbose))
}

/// Asks on standard error, reads the answer from standard input.
fn confirm(what: &str) -> Result<bool, CommandError> {
    let mut stderr = std::io::stderr().lock();
    // A question that nobody can read still gets its answer, usually none, from standard input.
    let _ = write!(stderr, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")
        .and_then(|()| stderr.flush());
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CommandError::io("can't read", "standard input", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Says what would go, in a few lines, or piece by piece.
fn summary(plan: &PrunePlan, is_verbose: bool) -> String {
    let mut text = if is_verbose { table(&rows_of(&plan.items), SystemTime::now()) } else { String::new() };
    for kind in CacheKind::ALL {
        let of_kind = plan.items.iter().filter(|item| item.kind == kind);
        let (count, bytes) = of_kind.fold((0u64, 0), |(count, sum), item| (count + 1, sum + item.size_bytes));
        let what = match kind {
            CacheKind::Step => "layers of steps",
            CacheKind::Image => "unpacked layers of images",
            CacheKind::Blob => "blobs that no image's name reaches",
            CacheKind::Record => "records",
            CacheKind::CacheMount => "cache mounts",
            CacheKind::Temporary => "files and directories of killed builds",
        };
        if count > 0 {
            text.push_str(&format!("  {count} {what}, {}\n", size(bytes)));
        }
    }
    let cache = size(plan.cache_bytes);
    match text.is_empty() {
        true => format!("There is nothing to remove; the cache has {cache}.\n"),
        false => format!("Of the cache's {cache}:\n{text}"),
    }
}

fn render(removed: &[CacheRow], is_verbose: bool) -> String {
    let now = SystemTime::now();
    let text = match (removed.is_empty(), is_verbose) {
        (true, _) => String::new(),
        (false, true) => pretty(removed, now),
        (false, false) => table(removed, now),
    };
    let total: u64 = removed.iter().map(|row| row.size_bytes).sum();
    format!("{text}Total:\t{}\n", size(total))
}
