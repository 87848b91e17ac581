// SPDX-License-Identifier: Apache-2.0
//! What is told about images of the store: `inspect`, `history`, `images`, `resolve`.

use polyarch_oci::config::History;
use polyarch_testkit::{DockerRegistry, Image, Need, PlatformImage, TestEnvironment, hello_rootfs, requires};
use serde_json::Value;

/// A store that has an image of two platforms, and the image.
struct Fixture {
    environment: TestEnvironment,
    registry: DockerRegistry,
    name: String,
    image: Image,
}

impl Fixture {
    fn new() -> Option<Fixture> {
        if requires(&[Need::Command("docker-registry")]).is_some() {
            return None;
        }
        let platform = |name: &str, architecture: &str| {
            let mut image = PlatformImage::new(name, hello_rootfs(architecture, "hello"), &["/bin/hello"]);
            image.config.created = Some("2024-05-01T10:00:00Z".to_owned());
            image.config.author = "someone".to_owned();
            image.config.config.labels.insert("org.example.a".to_owned(), "b".to_owned());
            image.config.config.env.push("A=1".to_owned());
            let step = |command: &str, empty_layer| History {
                created: Some("2024-05-01T10:00:00Z".to_owned()),
                created_by: command.to_owned(),
                comment: "buildkit.dockerfile.v0".to_owned(),
                empty_layer,
                ..History::default()
            };
            image.config.history = vec![
                step("COPY hello /bin/hello # with a comment that is much too long for a table", false),
                step("CMD [\"/bin/hello\"]", true),
            ];
            image
        };
        let image = Image::new(vec![platform("linux/amd64", "amd64"), platform("linux/arm64", "arm64")]);
        let (environment, registry) =
            (TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch")), DockerRegistry::start());
        registry.push("user/app", "v1", &image);
        let name = format!("{}:v1", registry.name("user/app"));
        environment.run(["pull", "--platform=linux/amd64,linux/arm64", &name]).assert_success();
        Some(Fixture { environment, registry, name, image })
    }

    fn output(&self, arguments: &[&str]) -> String {
        self.environment.run(arguments).assert_success().stdout.clone()
    }

    fn index(&self) -> String {
        self.image.index.digest.to_string()
    }

    fn arm64(&self) -> String {
        self.image.manifests[1].digest.to_string()
    }
}

#[test]
fn inspect_has_dockers_fields_and_every_digest_by_its_name() {
    let Some(fixture) = Fixture::new() else { return };
    let list: Value = serde_json::from_str(&fixture.output(&["inspect", &fixture.name])).unwrap();
    let image = &list[0];
    assert_eq!(image["Id"], fixture.index());
    assert_eq!(image["RepoTags"][0], fixture.name.as_str());
    assert!(image["RepoDigests"][0].as_str().unwrap().ends_with(&format!("user/app@{}", fixture.index())));
    assert_eq!((&image["Os"], &image["Author"]), (&Value::from("linux"), &Value::from("someone")));
    assert_eq!(image["Config"]["Cmd"][0], "/bin/hello");
    assert_eq!(image["Config"]["Labels"]["org.example.a"], "b");
    assert_eq!(image["IndexDigest"], fixture.index());
    assert_eq!(image["Platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    assert_eq!(image["Manifests"][1]["ID"], fixture.arm64());
    assert_eq!(image["Manifests"][1]["Available"], true);
    assert_eq!(image["Manifests"][1]["ImageData"]["Platform"]["architecture"], "arm64");
    assert_eq!(image["Manifests"][1]["ConfigDigest"], image_config(&fixture, 1));

    let image = &fixture.output(&["image", "inspect", "--platform=linux/arm64", &fixture.name]);
    let image = &serde_json::from_str::<Value>(image).unwrap()[0];
    assert_eq!(
        (&image["Architecture"], &image["Id"]),
        (&Value::from("arm64"), &Value::from(fixture.arm64()))
    );
    assert_eq!(image["ManifestDigest"], fixture.arm64());
    assert_eq!(image["ConfigDigest"], image_config(&fixture, 1));
    assert_eq!(image["IndexDigest"], fixture.index());
    // A digest of one platform means that platform.
    let format =
        "{{.Os}}/{{.Architecture}}{{.Variant}} {{index .Config.Labels \"none\"}}{{json .Config.Env}}";
    for name in [fixture.arm64(), fixture.arm64()[7..19].to_owned(), image_config(&fixture, 1)] {
        assert_eq!(
            fixture.output(&["inspect", "-f", format, &name]),
            "linux/arm64 [\"PATH=/bin:/usr/bin:/sbin:/usr/sbin\",\"A=1\"]\n"
        );
    }
    let compact = fixture.output(&["inspect", "--format=json", &fixture.name]);
    assert!(compact.starts_with("[{\"Id\":\"sha256:") && compact.lines().count() == 1);
}

fn image_config(fixture: &Fixture, at: usize) -> String {
    fixture.image.manifests[at].value.config.digest.to_string()
}

#[test]
fn what_inspect_can_not_tell_is_told_with_what_there_is() {
    let Some(fixture) = Fixture::new() else { return };
    let near = fixture.name.replace("app", "ap");
    let output = fixture.environment.run(["inspect", &fixture.name, &near]);
    assert!(output.assert_code(2).stdout.contains("\"Id\""), "{output}");
    output.assert_stderr(&format!("no such image: {near}")).assert_stderr("did you mean");
    let output = fixture.environment.run(["inspect", "--platform=linux/s390x", &fixture.name]);
    output
        .assert_code(4)
        .assert_stderr("has no image for linux/s390x; platforms in the store: linux/amd64, linux/arm64");
    let output = fixture.environment.run(["inspect", "-f", "{{.Architectur}}", &fixture.name]);
    output.assert_code(2).assert_stderr("did you mean Architecture?").assert_stderr("  ^^^^^^^^^^^^");
    let output = fixture.environment.run(["inspect", "-f", "{{.Os", "nothing"]);
    output.assert_code(2).assert_stderr("this action has no end");
}

#[test]
fn history_has_dockers_columns() {
    let Some(fixture) = Fixture::new() else { return };
    let table = fixture.output(&["history", &fixture.name]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("IMAGE          CREATED"), "{table}");
    assert!(
        lines[1].starts_with(&fixture.index()[7..19]) && lines[1].contains("CMD [\"/bin/hello\"]"),
        "{table}"
    );
    assert!(lines[1].contains("   0B   ") && lines[1].ends_with("buildkit.dockerfile.v0"), "{table}");
    assert!(
        lines[2].starts_with("<missing>") && lines[2].contains("COPY hello /bin/hello # with a comment"),
        "{table}"
    );
    assert!(lines[2].contains('…') && lines[2].contains("ago"), "{table}");
    let format = "{{.CreatedBy}}|{{.Size}}|{{.CreatedAt}}|{{.LayerDigest}}";
    let layer = &fixture.image.manifests[1].value.layers[0];
    let line = format!(
        "COPY hello /bin/hello # with a comment that is much too long for a table|{}|2024-05-01T10:00:00Z|{}\n",
        layer.size, layer.digest
    );
    let arguments = ["history", "--no-trunc", "--human=false", "--platform=arm64", "--format", format];
    assert!(fixture.output(&[&arguments[..], &[&fixture.name]].concat()).ends_with(&line));
    assert_eq!(fixture.output(&["history", "-q", &fixture.name]).lines().last(), Some("<missing>"));
    let json = fixture.output(&["history", "--format=json", &fixture.name]);
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["CreatedBy"].is_string()));
}

#[test]
fn images_are_filtered_and_formatted_as_by_docker() {
    let Some(fixture) = Fixture::new() else { return };
    let table = fixture.output(&["images"]);
    let id = &fixture.index()[7..19];
    assert!(table.starts_with("REPOSITORY"), "{table}");
    assert!(table.contains(&format!("v1        {id}   linux/amd64, linux/arm64   ")), "{table}");
    let tree = fixture.output(&["image", "ls", "--tree"]);
    assert!(tree.contains("INDEX DIGEST   MANIFEST DIGEST   CONFIG DIGEST"), "{tree}");
    assert!(
        tree.contains(&fixture.arm64()[7..19]) && tree.contains(&image_config(&fixture, 1)[7..19]),
        "{tree}"
    );
    let format = ["images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"];
    let expected = format!("{} v1 {id}\n", fixture.registry.name("user/app"));
    assert_eq!(fixture.output(&format), expected);
    for (filter, is_there) in [
        ("label=org.example.a", true),
        ("label=org.example.a=b", true),
        ("label=org.example.a=c", false),
        ("platform=linux/arm64", true),
        ("platform=linux/riscv64", false),
        ("reference=*/*/app", true),
        ("reference=other", false),
        ("dangling=true", false),
        ("before=sha256:", false),
    ] {
        let output = fixture.environment.run([&["images", "-q", "--filter", filter][..]].concat());
        if filter == "before=sha256:" {
            output.assert_code(2).assert_stderr("no such image");
        } else {
            assert_eq!(output.assert_success().stdout.lines().count() == 1, is_there, "{filter}");
        }
    }
    assert_eq!(fixture.output(&["images", "-q", &fixture.name]).trim_end(), id);
    assert_eq!(fixture.output(&["images", "-q", "nothing"]), "");
}

#[test]
fn resolve_says_which_platform_of_which_name_a_digest_is() {
    let Some(fixture) = Fixture::new() else { return };
    let (index, arm64, config) = (fixture.index(), fixture.arm64(), image_config(&fixture, 1));
    let layer = fixture.image.manifests[1].value.layers[0].digest.to_string();
    let name = &fixture.name;
    for (asked, sentence) in [
        (&arm64, format!("{arm64} is the image of linux/arm64 in {name} (index {index})\n")),
        (
            &arm64[7..19].to_owned(),
            format!("{arm64} is the image of linux/arm64 in {name} (index {index})\n"),
        ),
        (&index, format!("{index} is the index of {name} (linux/amd64, linux/arm64)\n")),
        (
            &config,
            format!(
                "{config} is the config (docker's image id) of linux/arm64 in {name} (index {index}, manifest {arm64})\n"
            ),
        ),
        (
            &layer,
            format!("{layer} is layer 1 of 1 of linux/arm64 in {name} (index {index}, manifest {arm64})\n"),
        ),
    ] {
        assert_eq!(fixture.output(&["resolve", asked]), sentence, "{asked}");
    }
    let output = fixture.output(&["resolve", name]);
    assert!(output.starts_with(&format!("Name:       {name}\nStore:      index {index}\n")), "{output}");
    assert!(output.contains("Registry:   the same\n"), "{output}");
    assert!(output.contains(&format!("  linux/arm64   manifest {arm64}   config {config}\n")), "{output}");
    let by_digest = name.replace(":v1", &format!("@{arm64}"));
    let sentence = format!("{arm64} is the image of linux/arm64 in {name} (index {index})");
    assert_eq!(fixture.output(&["resolve", "--local", &by_digest]), format!("{sentence}\n"));
    assert_eq!(
        fixture.output(&["resolve", &by_digest]),
        format!("{sentence}; in the store and at the registry\n")
    );

    let json: Value = serde_json::from_str(&fixture.output(&["resolve", "--format=json", &config])).unwrap();
    let place = &json["matches"][0];
    assert_eq!((&place["kind"], &place["platforms"][0]), (&"config".into(), &"linux/arm64".into()));
    assert_eq!((&place["indexDigest"], &place["manifestDigest"]), (&index.into(), &arm64.clone().into()));
    let json: Value = serde_json::from_str(&fixture.output(&["resolve", "--format=json", name])).unwrap();
    assert_eq!(json["registry"]["platforms"][1]["manifestDigest"], arm64);
}

#[test]
fn resolve_asks_the_registry_and_tells_what_looks_alike() {
    let Some(fixture) = Fixture::new() else { return };
    let other =
        Image::new(vec![PlatformImage::new("linux/riscv64", hello_rootfs("amd64", "x"), &["/bin/hello"])]);
    fixture.registry.push("user/elsewhere", "v2", &other);
    let name = fixture.registry.name("user/elsewhere");
    let output = fixture.output(&["resolve", &format!("{name}:v2")]);
    assert!(output.contains("Store:      not there\nRegistry:   index sha256:"), "{output}");
    assert!(output.contains("linux/riscv64   manifest"), "{output}");
    let image = &other.manifests[0];
    let (index, manifest) = (&other.index.digest, &image.digest);
    let (layer, config) = (&image.value.layers[0].digest, &image.value.config.digest);
    let of = |what: &str| format!("{what} of linux/riscv64 in {name}:v2 (index {index}");
    // The tag is found, where none is said.
    for (asked, sentence) in [
        (format!("{name}:v2@{manifest}"), format!("{manifest} is {})", of("the image"))),
        (format!("{name}@{manifest}"), format!("{manifest} is {})", of("the image"))),
        (format!("{name}@{index}"), format!("{index} is the index of {name}:v2 (linux/riscv64)")),
        (format!("{name}:v2@{layer}"), format!("{layer} is {}, manifest {manifest})", of("layer 1 of 1"))),
        (
            format!("{name}@{config}"),
            format!("{config} is {}, manifest {manifest})", of("the config (docker's image id)")),
        ),
    ] {
        let expected = format!("{sentence}; at the registry, not in the store\n");
        assert_eq!(fixture.output(&["resolve", &asked]), expected, "{asked}");
    }
    let json: Value =
        serde_json::from_str(&fixture.output(&["resolve", "--format=json", &format!("{name}@{config}")]))
            .unwrap();
    assert_eq!(json["matches"][0]["foundIn"], serde_json::json!(["registry"]));
    let wrong = format!("{name}:v2@{}0000", &config.to_string()[..67]);
    let output = fixture.environment.run(["resolve", &wrong]);
    output.assert_code(2).assert_stderr("neither the store nor the registry has sha256:");
    output.assert_stderr(&format!("these begin alike: {config} (in {name}:v2)"));

    // The last digits are wrong, as after a mistake in copying.
    let arm64 = fixture.arm64();
    let wrong =
        format!("{}{}", &arm64[..arm64.len() - 4], if arm64.ends_with("0000") { "1111" } else { "0000" });
    let output = fixture.environment.run(["resolve", &wrong]);
    output.assert_code(2).assert_stderr(&format!("no name of the store leads to {wrong}"));
    output.assert_stderr(&format!("these begin alike: {arm64} (in "));
    let output = fixture.environment.run(["resolve", "--local", &format!("{name}:v3")]);
    output.assert_code(2).assert_stderr("no such image");
    let output = fixture.environment.run(["resolve", &format!("{name}:v3")]);
    assert!(output.code != 0, "{output}");
}
