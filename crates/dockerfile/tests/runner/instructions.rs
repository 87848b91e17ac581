// SPDX-License-Identifier: Apache-2.0
//! Typed instructions: what they hold, what expansion does to them, and what helpers make of them.

use polyarch_dockerfile::ast::Pair;
use polyarch_dockerfile::instruction::mount::MountOwner;
use polyarch_dockerfile::instruction::{
    Add, Command, Copy, Healthcheck, Instruction, InstructionKind, MountSpec, Network, Program, Run,
    Security, Sharing, Source,
};
use polyarch_dockerfile::{Dockerfile, Environment, Expander, ParseErrorKind, Span};

fn instruction(text: &str) -> Instruction {
    let source = format!("FROM a\n{text}");
    let mut dockerfile = Dockerfile::parse(&source).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut instructions = dockerfile.stages.remove(0).instructions;
    assert_eq!(instructions.len(), 1, "{text}");
    instructions.remove(0)
}

fn expanded(text: &str) -> InstructionKind {
    let environment: Environment =
        [("x", "X"), ("two", "1 2"), ("dir", "/d"), ("sig", "SIGINT")].into_iter().collect();
    let expanded = instruction(text).expand(&mut Expander::new(&environment, '\\'));
    expanded.expect("the instructions of these tests expand").kind
}

fn run(text: &str) -> Run {
    match expanded(text) {
        InstructionKind::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(text: &str) -> Copy {
    match expanded(text) {
        InstructionKind::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn add(text: &str) -> Add {
    match expanded(text) {
        InstructionKind::Add(add) => add,
        other => panic!("{other:?}"),
    }
}

fn path(text: &str) -> Source {
    Source::Path(text.to_owned())
}

#[test]
fn instructions_know_where_they_came_from() {
    let source = "FROM a\n\n# note\nrun echo \\\n    one &&  two\nCOPY <<EOF /x\nbody\nEOF\n";
    let dockerfile = Dockerfile::parse(source).unwrap();
    let [run, copy] = dockerfile.stages[0].instructions.as_slice() else { panic!() };
    assert_eq!((run.name(), run.keyword.as_str()), ("RUN", "run"));
    assert_eq!(run.original, "run echo     one &&  two");
    assert_eq!(run.comments, ["note"]);
    assert_eq!(run.span.lines(), 4..=5);
    assert_eq!(run.span.text(source), "run echo \\\n    one &&  two");
    assert_eq!(copy.original, "COPY <<EOF /x");
    assert_eq!(copy.span.lines(), 6..=8);
}

#[test]
fn fields_that_are_expanded() {
    assert_eq!(expanded("WORKDIR \"$dir/a b\""), InstructionKind::Workdir("/d/a b".to_owned()));
    assert_eq!(expanded("USER $x:'$x'"), InstructionKind::User("X:$x".to_owned()));
    assert_eq!(expanded("STOPSIGNAL ${sig}"), InstructionKind::Stopsignal("SIGINT".to_owned()));
    let InstructionKind::Env(env) = expanded("ENV $x=$two b=\"$x\"'$x'\\$x") else { panic!() };
    let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into(), has_equals: true };
    assert_eq!(env.pairs, [pair("X", "1 2"), pair("b", "X$x$x")]);
    let InstructionKind::Label(label) = expanded("LABEL a.$x=\"$two\"") else { panic!() };
    assert_eq!(label.pairs, [pair("a.X", "1 2")]);
    let InstructionKind::Expose(expose) = expanded("EXPOSE 80 $two 5-6/udp") else { panic!() };
    assert_eq!(expose.ports, ["1", "2", "5-6/udp", "80"]);
    assert_eq!(expose.exposed_ports().unwrap(), ["1/tcp", "2/tcp", "5/udp", "6/udp", "80/tcp"]);
    let InstructionKind::Volume(volume) = expanded("VOLUME [\"/a b\", \"$dir\"]") else { panic!() };
    assert_eq!(volume.paths, ["/a b", "/d"]);
}

#[test]
fn fields_that_are_not_expanded() {
    for text in [
        "RUN echo $x",
        "CMD echo $x",
        "ENTRYPOINT [\"$x\"]",
        "HEALTHCHECK CMD $x",
        "SHELL [\"$x\"]",
        "MAINTAINER $x",
        "ONBUILD ENV a=$x",
        "ARG a=$x",
    ] {
        assert_eq!(expanded(text), instruction(text).kind, "{text}");
    }
    assert_eq!(copy("COPY --exclude=$x a b").exclude, ["$x"]);
}

#[test]
fn errors_of_expansion() {
    let environment = Environment::new();
    let error = instruction("WORKDIR ${x:?needed}").expand(&mut Expander::new(&environment, '\\'));
    assert_eq!(error.unwrap_err().to_string(), "x: needed");
}

#[test]
fn copy_has_sources_flags_and_heredocs() {
    let all = copy(
        "COPY --from=build --chown=$x:2 --chmod=$x --link --parents --exclude=a --exclude=!b $x <<f <<-'g' b $dir/\n\
         $x \\$x \"q\"\nf\n\t$x\ng",
    );
    assert_eq!(all.from.as_deref(), Some("build"));
    assert_eq!((all.chown.as_deref(), all.chmod.as_deref()), (Some("X:2"), Some("X")));
    assert!(all.link && all.parents);
    assert_eq!(all.exclude, ["a", "!b"]);
    assert_eq!(all.destination, "/d/");
    let [a, Source::Heredoc(f), Source::Heredoc(g), b] = all.sources.as_slice() else { panic!("{all:?}") };
    assert_eq!([a, b], [&path("X"), &path("b")]);
    assert_eq!((f.name.as_str(), f.content.as_str()), ("f", "X $x \"q\"\n"));
    assert_eq!((g.name.as_str(), g.content.as_str()), ("g", "$x\n"));
    assert_eq!(copy("COPY [\"a b\", \"<<x\", \"/d e\"]").sources, [path("a b"), path("<<x")]);
    let plain = copy("COPY --from= a b");
    assert_eq!(plain, Copy { sources: vec![path("a")], destination: "b".to_owned(), ..Copy::default() });
}

/// As in BuildKit words are cut at blanks before quotes are looked at; JSON form is for names with blanks.
#[test]
fn quotes_do_not_hold_sources_together() {
    let environment = Environment::new();
    let error = instruction("COPY \"a b\" c").expand(&mut Expander::new(&environment, '\\')).unwrap_err();
    assert_eq!(error.to_string(), "unexpected end of \"\\\"a\" while looking for matching double-quote");
}

#[test]
fn add_has_flags_of_its_own() {
    let all = add("ADD --checksum=sha256:$x --keep-git-dir --unpack=false --chmod=644 https://a/$x /d/");
    assert_eq!(all.checksum.as_deref(), Some("sha256:X"));
    assert_eq!((all.keep_git_dir, all.unpack), (Some(true), Some(false)));
    assert_eq!(all.sources, [path("https://a/X")]);
    let plain = add("ADD a b");
    assert_eq!((plain.keep_git_dir, plain.unpack, plain.link), (None, None, false));
}

#[test]
fn run_has_two_forms_and_flags() {
    let plain = run("RUN echo  $x \\\n  y");
    assert_eq!(plain.command, Command::Shell("echo  $x   y".to_owned()));
    assert_eq!((plain.network, plain.security), (Network::Default, Security::Sandbox));
    let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
    assert_eq!(plain.command.arguments(&shell), ["/bin/sh", "-c", "echo  $x   y"]);
    let exec = run(
        "RUN --network=none --security=insecure --device=a/b=c,required --device=name=d [\"a\", \"b c\"]",
    );
    assert_eq!(exec.command.arguments(&shell), ["a", "b c"]);
    assert_eq!((exec.network, exec.security), (Network::None, Security::Insecure));
    let devices: Vec<_> = exec.devices.iter().map(|device| (device.name.as_str(), device.required)).collect();
    assert_eq!(devices, [("a/b=c", true), ("d", false)]);
}

#[test]
fn programs_of_heredocs() {
    let program = |text: &str| run(text).program();
    assert_eq!(program("RUN <<EOF\none\n\ttwo $x\nEOF"), Program::Shell("one\n\ttwo $x\n".to_owned()));
    assert_eq!(program("RUN <<-EOF\n\tone\n\t\ttwo\n\tEOF"), Program::Shell("one\ntwo\n".to_owned()));
    let script = Program::Script { file_name: "EOF".to_owned(), content: "#!/bin/x\none\n".to_owned() };
    assert_eq!(program("RUN <<'EOF'\n#!/bin/x\none\nEOF"), script);
    assert_eq!(
        program("RUN cat <<A <<-B\n1\nA\n\t2\nB"),
        Program::Shell("cat <<A <<-B\n1\nA\n\t2\nB".to_owned())
    );
    assert_eq!(program("RUN python3 <<EOF\n#!x\nEOF"), Program::Shell("python3 <<EOF\n#!x\nEOF".to_owned()));
    assert_eq!(program("RUN [\"<<A\"]"), Program::Exec(vec!["<<A".to_owned()]));
}

fn spec(text: &str) -> Result<MountSpec, String> {
    run(&format!("RUN --mount={text} true")).mounts[0].spec().map_err(|error| error.to_string())
}

#[test]
fn mounts_of_all_types() {
    let none = || String::new();
    let owner = MountOwner::default();
    let bind = |from: Option<&str>, source: &str, target: &str, read_only| {
        let from = from.map(str::to_owned);
        Ok(MountSpec::Bind { from, source: source.to_owned(), target: target.to_owned(), read_only })
    };
    assert_eq!(spec("target=/t"), bind(None, "", "/t", true));
    assert_eq!(spec("type=bind,from=b,source=s$x,dst=$dir/t,rw"), bind(Some("b"), "sX", "/d/t", false));
    assert_eq!(spec("TYPE=BIND,Src=s,destination=t,readonly=false"), bind(None, "s", "t", false));
    assert_eq!(spec("readwrite=0"), bind(None, "", "", true));
    let cache = |id: &str, sharing| MountSpec::Cache {
        id: id.to_owned(),
        from: None,
        source: none(),
        target: "/c/".to_owned(),
        read_only: false,
        sharing,
        owner,
    };
    assert_eq!(spec("type=cache,target=/c/"), Ok(cache("/c", Sharing::Shared)));
    assert_eq!(spec("type=cache,target=/c/,id=i$x,sharing=LOCKED"), Ok(cache("iX", Sharing::Locked)));
    let owned = MountOwner { mode: Some(0o1755), uid: Some(1), gid: Some(2) };
    let Ok(MountSpec::Cache { owner, .. }) = spec("type=cache,target=/c,mode=1755,uid=1,gid=2") else {
        panic!()
    };
    assert_eq!(owner, owned);
    let tmpfs = |size_bytes| Ok(MountSpec::Tmpfs { target: "/t".to_owned(), size_bytes });
    assert_eq!(spec("type=tmpfs,target=/t"), tmpfs(0));
    assert_eq!(spec("type=tmpfs,target=/t,size=64m"), tmpfs(64 << 20));
    let secret = |id: &str, target: Option<&str>, env: Option<&str>, required| {
        let (target, env) = (target.map(str::to_owned), env.map(str::to_owned));
        Ok(MountSpec::Secret { id: id.to_owned(), target, env, required, owner: MountOwner::default() })
    };
    assert_eq!(spec("type=secret,id=a/b"), secret("a/b", Some("/run/secrets/b"), None, false));
    assert_eq!(spec("type=secret,target=/x/y,required"), secret("y", Some("/x/y"), None, true));
    assert_eq!(spec("type=secret,id=a,env=A"), secret("a", None, Some("A"), false));
    assert_eq!(spec("type=secret,src=a,env=A,dst=/f"), secret("a", Some("/f"), Some("A"), false));
    let ssh = |id: &str, target: Option<&str>, required| {
        let target = target.map(str::to_owned);
        Ok(MountSpec::Ssh { id: id.to_owned(), target, required, owner: MountOwner::default() })
    };
    assert_eq!(spec("type=ssh"), ssh("default", None, false));
    assert_eq!(spec("type=ssh,id=x,target=/s,required=true"), ssh("x", Some("/s"), true));
}

#[test]
fn mounts_that_do_not_fit() {
    for (text, expected) in [
        (
            "type=caches,target=/x",
            "unsupported mount type \"caches\" in mount \"type=caches,target=/x\", must be bind, cache, tmpfs, secret or ssh (did you mean cache?)",
        ),
        (
            "target=/x,source",
            "invalid field \"source\" of mount \"target=/x,source\", must be a key=value pair",
        ),
        ("targett=/x", "unexpected key 'targett' in mount \"targett=/x\" (did you mean target?)"),
        (
            "target=/x,ro=maybe",
            "invalid value \"maybe\" for ro of mount \"target=/x,ro=maybe\", must be true or false",
        ),
        ("target=/x,mode=755", "mode is not allowed for mounts of type bind: \"target=/x,mode=755\""),
        ("target=/x,required", "required is not allowed for mounts of type bind: \"target=/x,required\""),
        ("target=/x,size=1", "size is not allowed for mounts of type bind: \"target=/x,size=1\""),
        (
            "target=/x,sharing=locked",
            "sharing is not allowed for mounts of type bind: \"target=/x,sharing=locked\"",
        ),
        (
            "type=cache,target=/x,sharing=all",
            "invalid value \"all\" for sharing of mount \"type=cache,target=/x,sharing=all\", must be shared, private or locked",
        ),
        (
            "type=cache,target=/x,mode=9",
            "invalid value \"9\" for mode of mount \"type=cache,target=/x,mode=9\", must be an octal file mode",
        ),
        (
            "type=cache,target=/x,uid=-1",
            "invalid value \"-1\" for uid of mount \"type=cache,target=/x,uid=-1\", must be a number",
        ),
        (
            "type=tmpfs,target=/x,size=much",
            "invalid value \"much\" for size of mount \"type=tmpfs,target=/x,size=much\", must be a size such as 64m",
        ),
        ("type=secret", "mount of type secret needs id or target: \"type=secret\""),
        (
            "type=secret,id=a,from=b",
            "from is not allowed for mounts of type secret: \"type=secret,id=a,from=b\"",
        ),
        (
            "type=secret,id=a,src=b",
            "source together with id is not allowed for mounts of type secret: \"type=secret,id=a,src=b\"",
        ),
        ("type=ssh,source=b", "source is not allowed for mounts of type ssh: \"type=ssh,source=b\""),
    ] {
        assert_eq!(spec(text), Err(expected.to_owned()), "{text}");
    }
    let error = Dockerfile::parse("FROM a\nRUN --mount=type=cache,a\\\"b true").unwrap_err();
    assert!(error.to_string().contains("bare \" in field"), "{error}");
}

#[test]
fn healthchecks_as_configs_hold_them() {
    let config = |text: &str| match instruction(text).kind {
        InstructionKind::Healthcheck(healthcheck) => healthcheck.config(),
        other => panic!("{other:?}"),
    };
    assert_eq!(config("HEALTHCHECK none").test, ["NONE"]);
    assert_eq!(config("HEALTHCHECK CMD [\"a\", \"b\"]").test, ["CMD", "a", "b"]);
    let all = config(
        "HEALTHCHECK --interval=5s --timeout=1m --start-period=1.5s --start-interval=0 --retries=3 cmd curl  x",
    );
    assert_eq!(all.test, ["CMD-SHELL", "curl  x"]);
    assert_eq!(
        (all.interval, all.timeout, all.start_period, all.start_interval, all.retries),
        (5_000_000_000, 60_000_000_000, 1_500_000_000, 0, 3)
    );
    assert_eq!(instruction("HEALTHCHECK NONE").kind, InstructionKind::Healthcheck(Healthcheck::None));
}

#[test]
fn triggers_are_read_back() {
    let trigger = |text: &str| match instruction(text).kind {
        InstructionKind::Onbuild(onbuild) => onbuild.trigger,
        other => panic!("{other:?}"),
    };
    assert_eq!(trigger("onbuild   run  echo \\\n x"), "run  echo  x");
    let text = trigger("ONBUILD COPY <<a <<-b /d\n1\na\n\t2\n\tb");
    assert_eq!(text, "COPY <<a <<-b /d\n1\na\n\t2\nb");
    let span = Span { first_line: 7, last_line: 8, ..Span::default() };
    let read = Instruction::parse_trigger(&text, span).unwrap();
    assert_eq!(read.span, span);
    let InstructionKind::Copy(copy) = &read.kind else { panic!("{read:?}") };
    assert_eq!(copy.sources.len(), 2);
    for (text, kind) in [
        ("RUN a\nRUN b", ParseErrorKind::OnbuildNotSingle),
        ("FROM a", ParseErrorKind::OnbuildTrigger { trigger: "FROM".to_owned() }),
        ("ONBUILD RUN a", ParseErrorKind::OnbuildTrigger { trigger: "ONBUILD".to_owned() }),
        ("", ParseErrorKind::Empty),
    ] {
        let error = Instruction::parse_trigger(text, span).unwrap_err();
        assert_eq!((*error.kind, error.span), (kind, span), "{text}");
    }
}

#[test]
fn stages_are_found_by_name_and_index() {
    let source = "ARG V=1 W\n# base is first\nFROM a:$V AS Base\nFROM base\nFROM b as BASE\nCOPY --from=0 a b\n\
                  RUN --mount=from=other,target=/x --mount=type=cache,target=/y true\nFROM c AS 'x'";
    assert!(matches!(*Dockerfile::parse(source).unwrap_err().kind, ParseErrorKind::StageName { .. }));
    let dockerfile = Dockerfile::parse(source.rsplit_once('\n').unwrap().0).unwrap();
    let names: Vec<_> = dockerfile.stages.iter().map(|stage| stage.name.as_deref()).collect();
    assert_eq!(names, [Some("base"), None, Some("base")]);
    assert_eq!(dockerfile.stages[0].written_name.as_deref(), Some("Base"));
    assert_eq!(dockerfile.stages[0].description.as_deref(), Some("is first"));
    let index = |stage: Option<&polyarch_dockerfile::Stage>| stage.map(|stage| stage.index);
    assert_eq!(index(dockerfile.target(None)), Some(2));
    assert_eq!(index(dockerfile.target(Some("base"))), Some(2));
    assert_eq!(index(dockerfile.target(Some("1"))), Some(1));
    assert_eq!(index(dockerfile.target(Some("3"))), None);
    assert_eq!(index(dockerfile.stage_before("BASE", 1)), Some(0));
    assert_eq!(index(dockerfile.stage_before("base", 0)), None);
    assert_eq!(index(dockerfile.referenced_stage("base")), Some(2));
    assert_eq!(index(dockerfile.referenced_stage("0")), Some(0));
    assert_eq!(index(dockerfile.referenced_stage("image:tag")), None);
    let references: Vec<_> =
        dockerfile.stages[2].references().iter().map(|reference| reference.text).collect();
    assert_eq!(references, ["0", "other"]);
    let definitions: Vec<_> =
        dockerfile.global_arg_definitions().map(|arg| (arg.name.as_str(), arg.default.as_deref())).collect();
    assert_eq!(definitions, [("V", Some("1")), ("W", None)]);
    let global: Environment = [("V", "2")].into_iter().collect();
    let from = dockerfile.stages[0].from.expand(&mut Expander::new(&global, '\\')).unwrap();
    assert_eq!(from.image, "a:2");
}

#[test]
fn bytes_that_are_not_utf8_are_borne_in_comments_only() {
    assert!(Dockerfile::parse_bytes(b"# \xd6\xd0\xce\xc4\nFROM a\n").is_ok());
    let error = Dockerfile::parse_bytes(b"FROM a\nLABEL a=\xd6\xd0\n").unwrap_err();
    assert_eq!((*error.kind, error.span.first_line), (ParseErrorKind::NotUtf8, 2));
    assert!(Dockerfile::parse_bytes(b"FROM a\nRUN <<E\n\xff\nE\n").is_err());
    let error = Dockerfile::parse_bytes(&vec![b' '; 5 << 20]).unwrap_err();
    assert!(matches!(*error.kind, ParseErrorKind::TooLarge { .. }));
}

#[test]
fn hostile_files_end_in_time() {
    let long = "FROM a\n".to_owned() + &"ONBUILD ".repeat(100_000);
    assert!(Dockerfile::parse(&long).is_err());
    assert!(Dockerfile::parse(&format!("FROM a\nCMD {}", "[".repeat(100_000))).is_ok());
    assert!(Dockerfile::parse(&format!("FROM a\nRUN {}", "${x:-".repeat(100_000))).is_ok());
    assert!(Dockerfile::parse(&format!("FROM a\nRUN {}", "<<A ".repeat(10_000))).is_err());
    assert!(Dockerfile::parse(&format!("FROM a\n{}", "\\\n".repeat(500_000))).is_ok());
}
