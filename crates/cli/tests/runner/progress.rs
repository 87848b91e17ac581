// SPDX-License-Identifier: Apache-2.0
//! Progress as people and programs read it, from fixed events at fixed times.

use std::time::{Duration, SystemTime};

use insta::assert_snapshot;
use polyarch_cli::progress::Colors;
use polyarch_cli::progress::Renderer;
use polyarch_cli::progress::plain::Plain;
use polyarch_cli::progress::rawjson::RawJson;
use polyarch_cli::progress::tty::{Tty, TtyOptions};
use polyarch_solver::progress::{Event, Vertex, VertexLog, VertexStatus, VertexWarning};

const SECOND: u64 = 1000;

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
}

fn vertex(name: &str, started: Option<u64>, completed: Option<u64>) -> Vertex {
    Vertex {
        digest: format!("sha256:{name}").into(),
        inputs: Vec::new(),
        name: name.into(),
        started: started.map(at),
        completed: completed.map(at),
        cached: false,
        error: String::new(),
    }
}

fn begin(name: &str, started: u64) -> Event {
    Event::Vertex(vertex(name, Some(started), None))
}

fn end(name: &str, started: u64, completed: u64) -> Event {
    Event::Vertex(vertex(name, Some(started), Some(completed)))
}

fn cached(name: &str, time: u64) -> Event {
    Event::Vertex(Vertex { cached: true, ..vertex(name, Some(time), Some(time)) })
}

fn failed(name: &str, started: u64, completed: u64, error: &str) -> Event {
    Event::Vertex(Vertex { error: error.to_owned(), ..vertex(name, Some(started), Some(completed)) })
}

fn log(name: &str, time: u64, text: &str) -> Event {
    Event::Log(VertexLog {
        vertex: format!("sha256:{name}").into(),
        stream: 1,
        data: text.as_bytes().to_vec(),
        timestamp: at(time),
    })
}

fn status(name: &str, id: &str, current: u64, total: u64, started: u64, completed: Option<u64>) -> Event {
    Event::Status(VertexStatus {
        id: id.to_owned(),
        vertex: format!("sha256:{name}").into(),
        current,
        total,
        started: Some(at(started)),
        completed: completed.map(at),
    })
}

fn warning(name: &str, message: &str) -> Event {
    let vertex = if name.is_empty() { "".into() } else { format!("sha256:{name}").into() };
    Event::Warning(VertexWarning { vertex, ..VertexWarning::new(message) })
}

/// Gives events to a renderer at their times, with a refresh after each; returns what it wrote.
fn render(renderer: &mut dyn Renderer, events: Vec<(u64, Vec<Event>)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for (time, events) in events {
        for event in events {
            renderer.update(event, at(time));
        }
        renderer.refresh(&mut out, at(time)).unwrap();
        last = time;
    }
    renderer.finish(&mut out, at(last)).unwrap();
    out
}

fn plain(events: Vec<(u64, Vec<Event>)>) -> String {
    let text = render(&mut Plain::new("building with polyarch".to_owned(), false), events);
    String::from_utf8(text).unwrap()
}

#[test]
fn plain_shows_steps_one_after_the_other() {
    let text = plain(vec![
        (0, vec![begin("[internal] load build definition from Dockerfile", 0)]),
        (
            10,
            vec![
                status(
                    "[internal] load build definition from Dockerfile",
                    "transferring dockerfile:",
                    378,
                    0,
                    0,
                    Some(10),
                ),
                end("[internal] load build definition from Dockerfile", 0, 20),
            ],
        ),
        (100, vec![cached("[linux/arm64 1/2] FROM alpine", 100)]),
        (200, vec![begin("[linux/arm64 2/2] RUN make", 200)]),
        (712, vec![log("[linux/arm64 2/2] RUN make", 712, "cc -o x x.c\nld")]),
        (12_600, vec![log("[linux/arm64 2/2] RUN make", 12_600, " -o x\n")]),
        (13_000, vec![end("[linux/arm64 2/2] RUN make", 200, 13_000)]),
        (13_100, vec![failed("[linux/amd64 2/2] RUN make", 200, 13_100, "context canceled")]),
        (13_200, vec![failed("[linux/386 2/2] RUN make", 200, 13_200, "exit code: 2")]),
    ]);
    assert_snapshot!(text, @r#"
    #0 building with polyarch

    #1 [internal] load build definition from Dockerfile
    #1 transferring dockerfile: 378B done
    #1 DONE 0.0s

    #2 [linux/arm64 1/2] FROM alpine
    #2 CACHED

    #3 [linux/arm64 2/2] RUN make
    #3 0.512 cc -o x x.c
    #3 0.512 ld -o x
    #3 DONE 12.8s

    #4 [linux/amd64 2/2] RUN make
    #4 CANCELED

    #5 [linux/386 2/2] RUN make
    #5 ERROR: exit code: 2
    "#);
}

#[test]
fn plain_repeats_progress_only_after_a_share_or_a_while() {
    let part = |current, completed| status("pull", "sha256:aaaa", current, 10_000_000, 0, completed);
    let text = plain(vec![
        (0, vec![begin("pull", 0), part(0, None)]),
        (100, vec![part(100_000, None)]),
        (200, vec![part(400_000, None)]),
        (300, vec![part(500_000, None)]),
        (6_000, vec![part(500_001, None)]),
        (7_000, vec![part(10_000_000, Some(7_000)), end("pull", 0, 7_000)]),
    ]);
    assert_snapshot!(text, @r#"
    #0 building with polyarch

    #1 pull
    #1 sha256:aaaa 0B / 10.00MB
    #1 sha256:aaaa 500.00kB / 10.00MB 0.3s
    #1 sha256:aaaa 500.00kB / 10.00MB 6.0s
    #1 sha256:aaaa 10.00MB / 10.00MB 7.0s done
    #1 DONE 7.0s
    "#);
}

#[test]
fn plain_gives_each_running_step_its_share_of_time() {
    let mut events = vec![(0, vec![begin("one", 0), begin("two", 0)])];
    for second in 1..=16 {
        let time = second * SECOND;
        events.push((
            time,
            vec![
                log("one", time, &format!("one at {second}\n")),
                log("two", time, &format!("two at {second}\n")),
            ],
        ));
    }
    events.push((17 * SECOND, vec![end("two", 0, 17 * SECOND), end("one", 0, 17 * SECOND)]));
    assert_snapshot!(plain(events), @r#"
    #0 building with polyarch

    #1 one
    #1 1.000 one at 1
    #1 2.000 one at 2
    #1 3.000 one at 3
    #1 4.000 one at 4
    #1 5.000 one at 5
    #1 6.000 one at 6
    #1 7.000 one at 7
    #1 8.000 one at 8
    #1 9.000 one at 9
    #1 10.00 one at 10
    #1 11.00 one at 11
    #1 ...

    #2 two
    #2 1.000 two at 1
    #2 2.000 two at 2
    #2 3.000 two at 3
    #2 4.000 two at 4
    #2 5.000 two at 5
    #2 6.000 two at 6
    #2 7.000 two at 7
    #2 8.000 two at 8
    #2 9.000 two at 9
    #2 10.00 two at 10
    #2 11.00 two at 11
    #2 12.00 two at 12
    #2 ...

    #1 one
    #1 12.00 one at 12
    #1 13.00 one at 13
    #1 14.00 one at 14
    #1 15.00 one at 15
    #1 16.00 one at 16
    #1 DONE 17.0s

    #2 two
    #2 13.00 two at 13
    #2 14.00 two at 14
    #2 15.00 two at 15
    #2 16.00 two at 16
    #2 DONE 17.0s
    "#);
}

#[test]
fn plain_breaks_a_line_off_when_another_step_must_be_told() {
    let text = plain(vec![
        (0, vec![begin("dots", 0), begin("other", 0), log("dots", 0, "...")]),
        (100, vec![end("other", 0, 100)]),
        (200, vec![log("dots", 200, "... ok\n")]),
        (300, vec![end("dots", 0, 300)]),
    ]);
    assert_snapshot!(text, @r#"
    #0 building with polyarch

    #1 dots
    #1 0.000 ...
    #1 ...

    #2 other
    #2 DONE 0.1s

    #1 dots
    #1 0.000 ... ok
    #1 DONE 0.3s
    "#);
}

#[test]
fn plain_ends_with_the_warnings() {
    let text = plain(vec![
        (
            0,
            vec![
                begin("a", 0),
                warning("a", "careful"),
                warning("", "store on overlayfs: \u{1b}[31mcopying"),
            ],
        ),
        (100, vec![warning("a", "careful"), end("a", 0, 100)]),
    ]);
    assert_snapshot!(text, @r#"
    #0 building with polyarch

    #1 a
    #1 WARN: careful
    #1 DONE 0.1s

     2 warnings found:
     - careful
     - store on overlayfs: copying
    "#);
}

fn options(size: fn() -> (usize, usize)) -> TtyOptions {
    let colors = Colors { is_enabled: false, ..Colors::default() };
    TtyOptions { colors, log_lines: 6, description: "polyarch:local".to_owned(), is_debug: false, size }
}

/// What a terminal of this size shows after some bytes.
fn screen(bytes: &[u8], width: u16, height: u16) -> String {
    let size = |number| std::num::NonZeroU16::new(number).unwrap();
    let mut terminal = vt100::Parser::new(size(height), size(width), 0);
    // The line discipline of a terminal returns the carriage at each line feed.
    let text = String::from_utf8(bytes.to_vec()).unwrap().replace('\n', "\r\n");
    terminal.process(text.as_bytes());
    assert!(!terminal.screen().hide_cursor(), "the cursor is visible again");
    let lines: Vec<String> = terminal.screen().rows(0, width).map(|row| row.trim_end().to_owned()).collect();
    lines.join("\n").trim_end().to_owned()
}

#[test]
fn tty_draws_rows_over_themselves_and_leaves_the_final_state() {
    let mut tty = Tty::new(options(|| (70, 20)));
    let mut out = Vec::new();
    let make = "[linux/arm64 2/2] RUN make";
    let steps = [
        (0, begin("[internal] load build context", 0)),
        (50, status("[internal] load build context", "transferring context:", 12_345_678, 0, 0, Some(50))),
        (100, end("[internal] load build context", 0, 100)),
        (200, cached("[linux/arm64 1/2] FROM docker.io/library/alpine:3", 200)),
        (300, begin(make, 300)),
        (400, status("pull", "ignored, its step is unknown", 1, 2, 0, None)),
        (500, log(make, 500, "one\ntwo\nthree\nfour\nfive\nsix\nseven\r\n10%\r20%")),
        (600, begin("[linux/amd64 2/2] RUN make", 600)),
        (900, status("[linux/amd64 2/2] RUN make", "sha256:abc", 5_000_000, 10_000_000, 700, None)),
    ];
    for (time, event) in steps {
        tty.update(event, at(time));
        tty.refresh(&mut out, at(time)).unwrap();
    }
    assert_snapshot!(screen(&out, 70, 20), @r#"
    [+] Building 0.9s (2/4)                                polyarch:local
     => [internal] load build context                                0.1s
     => => transferring context: 12.35MB                             0.1s
     => CACHED [linux/arm64 1/2] FROM docker.io/library/alpine:3     0.0s
     => [linux/arm64 2/2] RUN make                                   0.6s
     => => # three
     => => # four
     => => # five
     => => # six
     => => # seven
     => => # 20%
     => [linux/amd64 2/2] RUN make                                   0.3s
     => => sha256:abc 5.00MB / 10.00MB                               0.2s
    "#);
    tty.update(failed(make, 300, 1_900, "exit code: 2"), at(1_900));
    tty.update(failed("[linux/amd64 2/2] RUN make", 600, 1_950, "context canceled"), at(1_950));
    tty.finish(&mut out, at(2_000)).unwrap();
    assert_snapshot!(screen(&out, 70, 20), @r#"
    [+] Building 2.0s (4/4) FINISHED                       polyarch:local
     => [internal] load build context                                0.1s
     => => transferring context: 12.35MB                             0.1s
     => CACHED [linux/arm64 1/2] FROM docker.io/library/alpine:3     0.0s
     => ERROR [linux/arm64 2/2] RUN make                             1.6s
     => CANCELED [linux/amd64 2/2] RUN make                          1.4s
     => => sha256:abc 5.00MB / 10.00MB                               0.2s
    "#);
}

#[test]
fn tty_neutralises_what_steps_write() {
    let mut tty = Tty::new(options(|| (60, 10)));
    let mut out = Vec::new();
    tty.update(begin("evil \u{1b}[2J\nname", 0), at(0));
    tty.update(
        log("evil \u{1b}[2J\nname", 10, "\u{1b}[2J\u{1b}[Hgone\u{7}\n\u{1b}]0;title\u{7}\ttab"),
        at(10),
    );
    tty.refresh(&mut out, at(10)).unwrap();
    assert_snapshot!(screen(&out, 60, 10), @r#"
    [+] Building 0.0s (0/1)                      polyarch:local
     => evil  name                                         0.0s
     => => # gone
     => => #     tab
    "#);
}

#[test]
fn tty_makes_room_by_dropping_what_is_done() {
    let mut tty = Tty::new(options(|| (40, 6)));
    let mut out = Vec::new();
    for number in 0..8 {
        tty.update(end(&format!("step {number}"), 0, 100), at(100));
    }
    tty.update(begin("running", 100), at(100));
    tty.update(log("running", 150, "no room for this\n"), at(150));
    tty.refresh(&mut out, at(200)).unwrap();
    assert_snapshot!(screen(&out, 40, 6), @r#"
    [+] Building 0.1s (8/9)  polyarch:local
     => step 5                         0.1s
     => step 6                         0.1s
     => step 7                         0.1s
     => running                        0.1s
    "#);
}

#[test]
fn tty_survives_any_size_of_terminal() {
    for size in [|| (0, 0), || (1, 1), || (10, 2), || (20, 3), || (500, 100)] as [fn() -> (usize, usize); 5] {
        let mut tty = Tty::new(options(size));
        let mut out = Vec::new();
        tty.update(begin("a step with 宽 characters and a long name", 0), at(0));
        tty.update(log("a step with 宽 characters and a long name", 1, &"x".repeat(10_000)), at(1));
        tty.refresh(&mut out, at(50)).unwrap();
        tty.finish(&mut out, at(100)).unwrap();
    }
}

#[test]
fn tty_colors_say_how_steps_ended() {
    let mut tty = Tty::new(TtyOptions { colors: Colors::default(), ..options(|| (60, 20)) });
    let out = render(
        &mut tty,
        vec![(
            100,
            vec![
                end("good", 0, 100),
                failed("bad", 0, 100, "exit code: 1"),
                failed("stopped", 0, 100, "canceled"),
            ],
        )],
    );
    let text = String::from_utf8(out).unwrap();
    for expected in ["\x1b[34m => good", "\x1b[31m => ERROR bad", "\x1b[33m => CANCELED stopped"] {
        assert!(text.contains(expected), "{expected:?} in {text:?}");
    }
}

#[test]
fn rawjson_is_one_status_message_per_line() {
    let mut json = RawJson::default();
    let mut failing = vertex("a", Some(0), Some(1_500));
    failing.error = "exit code: 2".to_owned();
    failing.inputs = vec!["sha256:b".into()];
    let out = render(
        &mut json,
        vec![
            (0, vec![begin("a", 0)]),
            (1, vec![status("a", "part", 5, 10, 0, None), log("a", 1, "hi\n"), warning("a", "careful")]),
            (2, vec![cached("c", 2), Event::Vertex(failing)]),
        ],
    );
    assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    {"vertexes":[{"digest":"sha256:a","name":"a","started":"2023-11-14T22:13:20Z"}]}
    {"statuses":[{"current":5,"id":"part","started":"2023-11-14T22:13:20Z","timestamp":"2023-11-14T22:13:20.001Z","total":10,"vertex":"sha256:a"}]}
    {"logs":[{"data":"aGkK","stream":1,"timestamp":"2023-11-14T22:13:20.001Z","vertex":"sha256:a"}]}
    {"warnings":[{"level":1,"short":"Y2FyZWZ1bA==","vertex":"sha256:a"}]}
    {"vertexes":[{"cached":true,"completed":"2023-11-14T22:13:20.002Z","digest":"sha256:c","name":"c","started":"2023-11-14T22:13:20.002Z"}]}
    {"vertexes":[{"completed":"2023-11-14T22:13:21.5Z","digest":"sha256:a","error":"exit code: 2","inputs":["sha256:b"],"name":"a","started":"2023-11-14T22:13:20Z"}]}
    "#);
}
