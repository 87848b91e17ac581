// SPDX-License-Identifier: Apache-2.0
//! The language as users of docker know it; expectations are what Go's text/template writes.

use super::*;

fn image() -> Value {
    let config = r#"{"Env":["PATH=/bin","A=1"],"Labels":{"b":"2","a":"1"},"Cmd":null,"Size":1234567}"#;
    let config: Value = serde_json::from_str(config).unwrap();
    Value::structure([
        ("Os", Value::from("linux")),
        ("Architecture", "arm64".into()),
        ("Size", 12_345_678_u64.into()),
        ("Config", config),
        ("RepoTags", Value::List(vec!["a:1".into(), "b:2".into()])),
        ("Html", "<a&b>".into()),
        ("Ratio", serde_json::from_str("0.25").unwrap()),
    ])
    .with_absent([("Variant", Value::from(""))])
}

fn render(template: &str) -> String {
    Template::parse(template)
        .and_then(|template| template.render(&image(), Functions::docker()))
        .unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn error(template: &str) -> TemplateError {
    Template::parse(template)
        .and_then(|template| template.render(&image(), Functions::docker()))
        .expect_err(template)
}

#[test]
fn templates_render_as_go_renders_them() {
    let table = [
        ("{{.Os}}/{{.Architecture}}{{with .Variant}}/{{.}}{{end}}", "linux/arm64"),
        ("{{ $.Os }}{{/* nothing */}} x", "linux x"),
        ("a {{- /* x */ -}} b", "ab"),
        ("a  {{- .Os -}}  b", "alinuxb"),
        ("{{-3}}{{ -3 | print }}", "-3-3"),
        ("{{.RepoTags}} {{len .RepoTags}} {{index .RepoTags 1}}", "[a:1 b:2] 2 b:2"),
        ("{{range .RepoTags}}{{.}};{{end}}", "a:1;b:2;"),
        ("{{range $i, $e := .RepoTags}}{{$i}}={{$e}} {{end}}", "0=a:1 1=b:2 "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .RepoTags}}{{if $i}}, {{end}}{{$e}}{{end}}", "a:1, b:2"),
        ("{{range .RepoTags}}{{if eq . \"b:2\"}}{{break}}{{end}}{{.}}{{end}}", "a:1"),
        ("{{range .RepoTags}}{{if eq . \"a:1\"}}{{continue}}{{end}}{{.}}{{end}}", "b:2"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{if .Variant}}v{{else if eq .Os \"linux\" \"x\"}}l{{else}}n{{end}}", "l"),
        ("{{if and .Os (not .Variant)}}yes{{end}}", "yes"),
        ("{{or .Variant \"none\"}} {{and .Os 0}}", "none 0"),
        ("{{.Config.Labels.a}} {{.Config.Labels.zz}} [{{index .Config.Labels \"zz\"}}]", "1 <no value> []"),
        ("{{.Config.Nothing.More}}", "<no value>"),
        (
            "{{json .Config.Labels}} {{json .RepoTags}} {{json .Html}}",
            r#"{"b":"2","a":"1"} ["a:1","b:2"] "<a&b>""#,
        ),
        ("{{.RepoTags | json}}", r#"["a:1","b:2"]"#),
        ("{{$x := .Os}}{{with .Architecture}}{{$x}}-{{.}}{{end}}", "linux-arm64"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("{{(index .RepoTags 0) | upper}} {{(.Config).Size}}", "A:1 1234567"),
        ("{{join .RepoTags \", \"}} {{join .Config.Labels \",\"}}", "a:1, b:2 1,2"),
        ("{{range split \"a,b\" \",\"}}<{{.}}>{{end}}", "<a><b>"),
        (
            "{{lower \"AbC\"}} {{title \"ab cd-ef\"}} {{truncate .Architecture 3}} [{{pad .Os 1 2}}]",
            "abc Ab Cd-Ef arm [ linux  ]",
        ),
        ("{{slice .Os 1 3}} {{slice .RepoTags 1}}", "in [b:2]"),
        (
            "{{printf \"%s|%-6s|%6s|%05d|%q|%x|%v|%.2f\" .Os .Os .Os 42 .Os 255 .RepoTags .Ratio}}",
            "linux|linux | linux|00042|\"linux\"|ff|[a:1 b:2]|0.25",
        ),
        (
            "{{printf \"%d%%\" .Os}} {{printf \"%s\"}} {{printf \"x\" 1}}",
            "%!d(string=linux)% %!s(MISSING) x%!(EXTRA int=1)",
        ),
        ("{{print 1 2 .Os \"x\" 3}} {{println .Os 1}}", "1 2linuxx3 linux 1\n"),
        (
            "{{eq 1 1.0}} {{ne .Os \"x\"}} {{lt 1 2}} {{le \"a\" \"a\"}} {{gt 1 2}} {{ge .Size 12345678}}",
            "true true true true false true",
        ),
        ("{{html .Html}} {{urlquery \"a b&c\"}} {{js \"a'b<\"}}", "&lt;a&amp;b&gt; a+b%26c a\\'b\\u003C"),
        (
            "{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .Os}}{{block \"u\" .Os}}<{{.}}>{{end}}",
            "[linux]<linux>",
        ),
        (
            "{{`raw \\n`}} {{\"tab\\tquote\\\"\"}} {{'a'}} {{0x10}} {{1_000}} {{1.5e3}}",
            "raw \\n tab\tquote\" 97 16 1000 1500",
        ),
        ("{{eq .Variant \"\"}}{{with $v := .Os}}{{$v}}{{end}}", "truelinux"),
        ("{{with .Variant}}x{{else with .Os}}{{.}}{{end}}", "linux"),
        ("no actions }} here", "no actions }} here"),
    ];
    for (template, expected) in table {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_go_itself_wrote_is_what_is_written() {
    let file: Value = serde_json::from_str(include_str!("../../testfiles/go-templates.json")).unwrap();
    let Value::Object(file) = file else { panic!("an object") };
    let (Some(value), Some(Value::List(cases))) = (file.get("value"), file.get("cases")) else {
        panic!("value and cases")
    };
    for case in cases {
        let Value::List(case) = case else { panic!("a pair") };
        let [Value::String(template), Value::String(expected)] = &case[..] else { panic!("a pair") };
        let text = Template::parse(template).unwrap().render(value, Functions::docker()).unwrap();
        assert_eq!(&text, expected, "{template}");
    }
    assert!(cases.len() > 30);
}

#[test]
fn json_of_buildx_is_indented() {
    let template = Template::parse("{{json .Config.Labels}}{{json .Html}}").unwrap();
    let text = template.render(&image(), Functions::buildx()).unwrap();
    assert_eq!(text, "{\n  \"b\": \"2\",\n  \"a\": \"1\"\n}\"\\u003ca\\u0026b\\u003e\"");
}

#[test]
fn errors_show_the_place_and_what_there_is() {
    insta::assert_snapshot!(error("{{.Os}}/{{.architecture}}"), @r"
    there is no field architecture (did you mean Architecture?); there are Architecture, Config, Html, Os, Ratio, RepoTags, Size, Variant
      in the template:
        {{.Os}}/{{.architecture}}
                  ^^^^^^^^^^^^^
    ");
    insta::assert_snapshot!(error("first\n{{truncat .}}"), @r#"
    there is no function "truncat" (did you mean truncate?); there are and, eq, ge, gt, html, index, join, js, json, le, len, lower, lt, ne, not, or, pad, print, printf, println, slice, split, title, truncate, upper, urlquery
      in line 2 of the template:
        {{truncat .}}
          ^^^^^^^
    "#);
    let table = [
        ("{{.Os", "this action has no end"),
        ("{{if .Os}}x", "this if has no {{end}}"),
        ("{{end}}", "nothing that this ends"),
        ("{{if}}x{{end}}", "a value is missing for if"),
        ("{{}}", "a value is missing for an action"),
        ("{{.Os | }}", "a command is missing after |"),
        ("{{.Os | 3}}", "not a function"),
        ("{{.Os 3}}", "takes no arguments"),
        ("{{$x}}", "there is no variable $x"),
        ("{{$x = 1}}", "there is no variable $x"),
        ("{{(.Os}}", "this parenthesis has no end"),
        ("{{.Os)}}", "this parenthesis was not opened"),
        ("{{\"abc}}", "this text has no end"),
        ("{{/* abc}}", "this comment has no end"),
        ("{{break}}", "outside of a range"),
        ("{{else}}", "nothing that this ends"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "there was an else already"),
        ("{{template \"x\"}}", "there is no template"),
        ("{{.Os.More}}", "a text has no fields"),
        ("{{index .RepoTags 7}}", "no position 7 in a list of 2"),
        ("{{index .RepoTags -1}}", "no position -1"),
        ("{{len 3}}", "a number has no length"),
        ("{{eq 1 \"1\"}}", "can't be compared"),
        ("{{range .Os}}{{end}}", "range goes over lists"),
        ("{{upper 3}}", "a text is needed"),
        ("{{json}}", "json takes 1 argument, it got 0"),
        ("{{printf \"%99999d\" 1}}", "no more than 10000 columns"),
        ("{{pad .Os -1 0}}", "pad takes numbers"),
        ("{{@}}", "unexpected '@'"),
        ("{{12x}}", "is not a number"),
        ("{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", "nested too deeply"),
        ("{{range 9999999999}}{{end}}", "does not come to an end"),
        ("{{range 99999999}}{{printf \"%9999d\" 1}}{{end}}", "writes more than"),
        ("{{$x := \"x\"}}{{range 9999}}{{$x = print $x $x}}{{end}}", "writes more than"),
    ];
    for (template, expected) in table {
        let error = error(template);
        assert!(error.message.contains(expected), "{template}: {error}");
    }
}

#[test]
fn depth_and_garbage_are_refused_without_harm() {
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + "x" + &close.repeat(count);
    assert!(Template::parse(&deep("{{if 1}}", "{{end}}", 5000)).is_err());
    assert!(Template::parse(&format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(Template::parse(&deep("{{if 1}}a{{else ", "", 500)).is_err());
    assert!(render(&deep("{{if 1}}", "{{end}}", 60)).contains('x'));
    // Every way of cutting a template off gives a tree or an error, never a panic.
    let whole = "{{- range $i, $é := .RepoTags -}}{{printf \"%-5.2f\\u00e9\" (index .X 1).Y}}{{else}}{{/* c */}}{{end}}";
    for (at, _) in whole.char_indices() {
        for text in [&whole[..at], &whole[at..]] {
            if let Ok(template) = Template::parse(text) {
                let _ = template.render(&image(), Functions::docker());
            }
        }
    }
}

#[test]
fn costly_fields_are_asked_for_by_name() {
    let asks = |template: &str| Template::parse(template).unwrap().asks_for("SBOM");
    assert!(asks("{{json .SBOM}}") && asks("{{json .}}") && asks("{{if $.SBOM.x}}{{end}}"));
    assert!(asks("{{range (.SBOM)}}{{end}}") && !asks("{{json .Manifest}} {{.Name}}"));
}

#[test]
fn listings_have_tables_as_dockers() {
    let row = |id: &str, name: &str| Value::structure([("ID", Value::from(id)), ("Name", name.into())]);
    let rows = [row("1", "a long name"), row("22", "b")];
    let titles = [("ID", "IMAGE ID"), ("Name", "NAME")];
    let render = |format: &str| Listing::parse(format).unwrap().render(&titles, &rows);
    assert_eq!(
        render(r"table {{.ID}}\t{{upper .Name}}").unwrap(),
        "IMAGE ID   NAME\n1          A LONG NAME\n22         B\n"
    );
    assert_eq!(render("table {{.Name}}\t{{.ID}}\n").unwrap().lines().next(), Some("NAME          IMAGE ID"));
    assert_eq!(render("{{.ID}}:{{.Name}}").unwrap(), "1:a long name\n22:b\n");
    assert!(render("table {{.Nam}}").unwrap_err().message.contains("did you mean Name?"));
}
