// SPDX-License-Identifier: Apache-2.0
//! What rules find: Dockerfiles and the findings, one line each: number, rule, detail.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_dockerfile::{BaseImage, Environment, IgnoreRules, Survey, SurveyRequest, survey};
use polyarch_oci::Platform;

/// A survey that can be asked for with changes.
struct Asked {
    target: Option<&'static str>,
    all_stages: bool,
    build_args: Vec<(String, String)>,
    bases: BTreeMap<usize, BaseImage>,
    ignored: Option<IgnoreRules>,
}

impl Asked {
    fn new() -> Asked {
        Asked {
            target: None,
            all_stages: true,
            build_args: Vec::new(),
            bases: BTreeMap::new(),
            ignored: None,
        }
    }

    fn with_arg(mut self, name: &str, value: &str) -> Asked {
        self.build_args.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the base of a stage known.
    fn with_base(mut self, stage: usize, base: BaseImage) -> Asked {
        self.bases.insert(stage, base);
        self
    }

    fn ignoring(mut self, rules: &str) -> Asked {
        self.ignored = Some(IgnoreRules::parse(rules.as_bytes()).expect("the rules are well formed"));
        self
    }

    fn of(&self, source: &str) -> Survey {
        let platform = Platform::new("linux", "amd64", "");
        let args =
            [("BUILDPLATFORM", "linux/amd64"), ("TARGETPLATFORM", "linux/amd64"), ("TARGETARCH", "amd64")];
        let request = SurveyRequest {
            target: self.target,
            all_stages: self.all_stages,
            build_args: &self.build_args,
            platform_args: args.into_iter().collect::<Environment>(),
            build_platform: &platform,
            platforms: std::slice::from_ref(&platform),
            bases: &self.bases,
            replaced: &BTreeSet::new(),
            ignored: self.ignored.as_ref(),
            with_own_rules: false,
        };
        survey(source, &request).expect("the settings make sense")
    }

    #[track_caller]
    fn finds(&self, source: &str, expected: &[&str]) {
        let survey = self.of(source);
        let found: Vec<String> = survey
            .findings
            .iter()
            .map(|it| format!("{} {}: {}", it.lines.start(), it.rule.name, it.detail))
            .collect();
        assert_eq!(found, expected, "{source}");
    }
}

#[track_caller]
fn finds(source: &str, expected: &[&str]) {
    Asked::new().finds(source, expected);
}

fn known() -> BaseImage {
    BaseImage { env: Some(vec!["PATH=/bin".to_owned()]), ..BaseImage::default() }
}

#[test]
fn casing_of_names_and_keywords() {
    finds("FROM scratch AS Builder\n", &["1 StageNameCasing: Stage name 'Builder' should be lowercase"]);
    finds("FROM scratch as one\n", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]);
    finds("from scratch AS one\n", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]);
    // A keyword without a casing of its own is told about once.
    finds(
        "From scratch as one\nFROM scratch AS two\n",
        &[
            "1 ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase)",
        ],
    );
    finds(
        "FROM scratch\nuser a\nuser b\n",
        &[
            "1 ConsistentInstructionCasing: Command 'FROM' should match the case of the command majority (lowercase)",
        ],
    );
    // As many of one as of the other: capitals are right. Arguments before the first stage don't count.
    finds(
        "arg A=1\nFROM scratch\nuser b\n",
        &[
            "3 ConsistentInstructionCasing: Command 'user' should match the case of the command majority (uppercase)",
        ],
    );
    finds("from scratch\nuser b\n", &[]);
}

#[test]
fn names_of_stages() {
    finds(
        "FROM scratch AS a\nFROM scratch AS a\n",
        &["2 DuplicateStageName: Duplicate stage name \"a\", stage names should be unique"],
    );
    finds(
        "FROM scratch AS context\n",
        &["1 ReservedStageName: Stage name should not use the same name as reserved stage \"context\""],
    );
}

#[test]
fn lines_that_are_continued_by_nothing() {
    finds(
        "FROM scratch\nCOPY a \\\n\n  /a\nCOPY <<E \\\n\n /b\ntext\nE\n",
        &["4 NoEmptyContinuation: Empty continuation line", "7 NoEmptyContinuation: Empty continuation line"],
    );
}

#[test]
fn commands_for_the_shell() {
    let detail = |name: &str, line: u32| {
        format!(
            "{line} JSONArgsRecommended: JSON arguments recommended for {name} to prevent unintended behavior related \
             to OS signals"
        )
    };
    finds("FROM scratch\nCMD run me\nENTRYPOINT me\n", &[&detail("CMD", 2), &detail("ENTRYPOINT", 3)]);
    finds("FROM scratch\nCMD [\"run\"]\n", &[]);
    // A shell that was chosen is meant, be it by a stage below or by the base.
    finds("FROM scratch AS a\nSHELL [\"/s\"]\nFROM a\nCMD run\n", &[]);
    let base = BaseImage { has_shell: true, ..known() };
    Asked::new().with_base(0, base).finds("FROM b\nCMD run\n", &[]);
    Asked::new().with_base(0, known()).finds("FROM b\nCMD run\n", &[&detail("CMD", 2)]);
}

#[test]
fn only_the_last_one_counts() {
    let detail = |name: &str, line: u32| {
        format!(
            "{line} MultipleInstructionsDisallowed: Multiple {name} instructions should not be used in the same stage \
             because only the last one will be used"
        )
    };
    finds(
        "FROM scratch AS a\nCMD [\"a\"]\nHEALTHCHECK NONE\nCMD [\"b\"]\nCMD [\"c\"]\nHEALTHCHECK NONE\nFROM a\nCMD [\"d\"]\n",
        &[&detail("CMD", 2), &detail("CMD", 4), &detail("HEALTHCHECK", 3)],
    );
}

#[test]
fn old_forms() {
    finds(
        "FROM scratch\nMAINTAINER me\nENV a b\nLABEL c d\nENV e=f\n",
        &[
            "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
            "3 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "4 LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    );
}

#[test]
fn variables_that_nobody_set() {
    finds(
        "FROM scratch\nARG DIRECTORY=a\nCOPY $DIRECTOR /\nCOPY a$nothing b$nothing\n",
        &[
            "3 UndefinedVar: Usage of undefined variable '$DIRECTOR' (did you mean $DIRECTORY?)",
            "4 UndefinedVar: Usage of undefined variable '$nothing'",
            "4 UndefinedVar: Usage of undefined variable '$nothing'",
        ],
    );
    finds(
        "FROM scratch\nENV PATH=$PAHT:/bin\nARG A=$a\nCOPY <<E /x\n$bottom\nE\n",
        &[
            "2 UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)",
            "3 UndefinedVar: Usage of undefined variable '$a'",
            "4 UndefinedVar: Usage of undefined variable '$bottom'",
        ],
    );
    // Declared without a value, set below, set by the base, left to the shell.
    finds("FROM scratch\nARG a\nUSER u$a\nFROM scratch AS x\nENV b=1\nFROM x\nUSER $b\n", &[]);
    let base = BaseImage { env: Some(vec!["c=1".to_owned()]), ..BaseImage::default() };
    Asked::new().with_base(0, base).finds("FROM b\nUSER $c\nRUN echo $d\nCMD [\"$e\"]\n", &[]);
    // Of a base that is not known anything may be set.
    finds("FROM unknown\nUSER $any\n", &[]);
    Asked::new()
        .with_base(0, BaseImage { on_build: vec!["USER $t".to_owned()], ..known() })
        .finds("FROM b\n", &["1 UndefinedVar: Usage of undefined variable '$t'"]);
}

#[test]
fn arguments_of_from() {
    finds(
        "ARG VERSION=1\nFROM base:${VERSON}\n",
        &[
            "2 InvalidDefaultArgInFrom: Default value for ARG base:${VERSON} results in empty or invalid base image name",
            "2 UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?)",
        ],
    );
    finds(
        "FROM --platform=$BULIDPLATFORM scratch\n",
        &[
            "1 UndefinedArgInFrom: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
        ],
    );
    finds("ARG TAG\nFROM scratch${TAG}\n", &[]);
    let invalid =
        "2 InvalidDefaultArgInFrom: Default value for ARG $IMAGE results in empty or invalid base image name";
    Asked::new().with_arg("IMAGE", "scratch").finds("ARG IMAGE\nFROM $IMAGE\n", &[invalid]);
    Asked::new().with_arg("IMAGE", "b").finds("ARG IMAGE=scratch\nFROM $IMAGE\n", &[]);
}

#[test]
fn platforms_of_from() {
    let redundant = |word: &str| {
        format!(
            "1 RedundantTargetPlatform: Setting platform to predefined {word} in FROM is redundant as this is the \
             default behavior"
        )
    };
    finds("FROM --platform=$TARGETPLATFORM scratch\n", &[&redundant("$TARGETPLATFORM")]);
    finds("FROM --platform=${TARGETPLATFORM} scratch\n", &[&redundant("${TARGETPLATFORM}")]);
    finds("FROM --platform=linux/$TARGETARCH scratch\nFROM --platform=$BUILDPLATFORM scratch\n", &[]);
    finds(
        "FROM --platform=linux/arm64 scratch\nFROM --platform=linux/arm64 scratch AS for-arm64\n",
        &[
            "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\"",
        ],
    );
    let arm = BaseImage { platform: Some(Platform::new("linux", "arm64", "")), ..known() };
    Asked::new().with_base(0, arm).finds(
        "FROM a/b:1\n",
        &["1 InvalidBaseImagePlatform: Base image a/b:1 was pulled with platform \"linux/arm64\", expected \
             \"linux/amd64\" for current build"],
    );
}

#[test]
fn directories_relative_to_what_the_base_has() {
    let detail = "2 WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes";
    finds("FROM scratch\nWORKDIR app\nWORKDIR deeper\n", &[detail]);
    finds("FROM scratch AS a\nWORKDIR /app\nFROM a\nWORKDIR deeper\n", &[]);
}

#[test]
fn secrets_by_their_names() {
    let detail = |line: u32, kind: &str, name: &str| {
        format!(
            "{line} SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data ({kind} \"{name}\")"
        )
    };
    finds(
        "FROM scratch\nARG GIT_TOKEN\nENV ApiKey=1 colour=2 DB_PASSWORD=3\nARG monkey\nENV PUBLIC_KEY=1\nARG TOKEN_FILE\n",
        &[&detail(2, "ARG", "GIT_TOKEN"), &detail(3, "ENV", "ApiKey"), &detail(3, "ENV", "DB_PASSWORD")],
    );
}

#[test]
fn files_that_are_ignored() {
    let detail = |line: u32, verb: &str, file: &str| {
        format!(
            "{line} CopyIgnoredFile: Attempting to {verb} file \"{file}\" that is excluded by .dockerignore"
        )
    };
    let source =
        "FROM scratch AS a\nCOPY ./x/y /\nADD x/ z /\nADD https://e.example/x /\nFROM a\nCOPY --from=a x /\n";
    Asked::new().ignoring("x\n").finds(source, &[&detail(2, "Copy", "x/y"), &detail(3, "Add", "x")]);
    Asked::new().ignoring("x\n!x/y\n").finds(source, &[]);
    Asked::new().ignoring("*\n").finds("FROM scratch\nCOPY . /\n", &[&detail(2, "Copy", ".")]);
    Asked::new().ignoring(".*\n").finds("FROM scratch\nCOPY . /\n", &[]);
}

#[test]
fn ports_that_say_more() {
    let format = "EXPOSE instruction should not define an IP address or host-port mapping, found";
    finds(
        "FROM scratch\nEXPOSE 1/Udp 2:3 [::1]:4:5 6\n",
        &[
            "2 ExposeProtoCasing: Defined protocol '1/Udp' in EXPOSE instruction should be lowercase",
            &format!("2 ExposeInvalidFormat: {format} '2:3'"),
            &format!("2 ExposeInvalidFormat: {format} '[::1]:4:5'"),
        ],
    );
}

#[test]
fn descriptions_are_looked_at_where_that_is_asked_for() {
    let source = "# what it is\nARG A=1\n# b the stage\nFROM scratch AS b\n# one of them\nARG C D\n";
    finds(source, &[]);
    let asked = format!("# check=experimental=InvalidDefinitionDescription\n{source}");
    finds(
        &asked,
        &[
            "3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# A <description>`",
            "7 InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    );
}

#[test]
fn rules_are_left_out_for_the_file_or_for_an_instruction() {
    let file = "FROM scratch as a\nMAINTAINER me\n";
    finds(&format!("# check=skip=all\n{file}"), &[]);
    finds(
        &format!("# check=skip=FromAsCasing\n{file}"),
        &["3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    );
    Asked::new().with_arg("BUILDKIT_DOCKERFILE_CHECK", "skip=all").finds(file, &[]);
    finds("FROM scratch\n# check=skip=MaintainerDeprecated\nMAINTAINER me\n# check=skip=all\nENV a b\n", &[]);
    let violation = |source: &str| Asked::new().of(source).violation;
    assert_eq!(violation(file), None);
    assert_eq!(
        violation(&format!("# check=error=true\n{file}")).as_deref(),
        Some("lint violation found for rules: FromAsCasing, MaintainerDeprecated")
    );
    assert_eq!(violation(&format!("# check=skip=all;error=true\n{file}")), None);
}

#[test]
fn what_stands_before_an_error_is_found() {
    finds(
        "FROM scratch AS Upper\nMAINTAINER me\nNONSENSE\nMAINTAINER you\n",
        &[
            "1 StageNameCasing: Stage name 'Upper' should be lowercase",
            "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        ],
    );
    let stopped = Asked::new().of("FROM scratch\nENV a b\nUSER ${x\nENV c d\n");
    assert_eq!(stopped.findings.len(), 1);
    assert_eq!(stopped.stopped.map(|it| it.span.first_line), Some(3));
}

#[test]
fn a_build_looks_at_the_stages_that_it_needs() {
    let source = "FROM scratch AS a\nENV a b\nFROM scratch AS b\nENV c d\nFROM scratch\nCOPY --from=b / /\n";
    let asked = Asked { all_stages: false, ..Asked::new() };
    let detail =
        "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format";
    asked.finds(source, &[&format!("4 {detail}")]);
    let asked = Asked { target: Some("a"), ..asked };
    asked.finds(source, &[&format!("2 {detail}")]);
}
