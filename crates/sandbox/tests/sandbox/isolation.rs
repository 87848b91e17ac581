// SPDX-License-Identifier: Apache-2.0
//! What a container sees of the kernel, and what it may do.

use std::path::Path;

use polyarch_sandbox::{Network, Security};

use crate::support::{World, shell};

#[test]
fn kernel_proc_and_sys_are_masked_and_read_only() {
    let Some(world) = World::new() else { return };
    let outcome = world.sh(
        "for file in kcore keys timer_list sched_debug latency_stats interrupts; do
             [ ! -e /proc/$file ] || [ $(wc -c < /proc/$file) = 0 ] || echo $file; done
         for path in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
             [ ! -d $path ] || [ -z \"$(ls $path)\" ] || echo $path; done
         echo x 2>/dev/null > /proc/sys/kernel/domainname || echo sys; mkdir /sys/x 2>/dev/null || echo sysfs
         echo x 2>/dev/null > /proc/sysrq-trigger || echo sysrq; mkdir /sys/fs/cgroup/x 2>/dev/null || echo cgroup
         echo $$; [ -e /proc/1/status ] && [ ! -r /proc/1/exe ] && echo hidden",
    );
    assert_eq!(outcome.output(), "sys\nsysfs\nsysrq\ncgroup\n2\nhidden\n");
}

#[test]
fn kernel_dev_has_the_usual_nodes() {
    let Some(world) = World::new() else { return };
    let mut spec = shell(
        "cd /dev; ls; head -c 3 zero | wc -c; echo x > null; echo x > full || echo full; for link in fd stdin core ptmx; do readlink $link; done
         [ -c pts/ptmx ] && echo ptmx; df -k /dev/shm | awk 'END {print $2}'; touch /dev/shm/x && echo shm",
    );
    spec.shm_size_bytes = 32 << 20;
    let outcome = world.run(&world.overlay().0, &spec);
    let output = outcome.output().replace("sh: write error: No space left on device\n", "");
    let names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let names = names.split(' ').filter(|name| *name != "tty" || Path::new("/dev/tty").exists());
    let expected: String = names.map(|name| format!("{name}\n")).collect();
    let rest = "3\nfull\n/proc/self/fd\n/proc/self/fd/0\n/proc/kcore\npts/ptmx\nptmx\n32768\nshm\n";
    assert_eq!(output, expected + rest);
}

#[test]
fn kernel_rights_are_dockers() {
    let Some(world) = World::new() else { return };
    let script =
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; umask; [ -e /proc/self/fd/3 ] || echo closed
                  mknod /x c 1 3 2>/dev/null || echo mknod; mount -t tmpfs x /bin 2>/dev/null || echo mount
                  unshare -U true 2>/dev/null || echo unshare; cat /proc/self/stat | cut -d' ' -f6";
    let outcome = world.sh(script);
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n0022\n\
                    closed\nmknod\nmount\nunshare\n2\n";
    assert_eq!(outcome.output(), expected);

    let mut spec = shell(script);
    spec.security = Security::Insecure;
    let insecure = world.run(&world.overlay().0, &spec);
    assert!(insecure.output().contains("Seccomp:\t0\n"), "{}", insecure.text());
    assert!(!insecure.text().contains("CapEff:\t00000000a80425fb"), "{}", insecure.text());
    assert!(!insecure.text().contains("\nmount\n"), "{}", insecure.text());
}

#[test]
fn kernel_a_network_of_its_own_has_only_lo() {
    let Some(world) = World::new() else { return };
    let mut spec = shell(
        "ip -o link | wc -l; ip -o link show lo | grep -c 'LOOPBACK,UP'; ping -c1 -W2 127.0.0.1 >&2 && ls /sys/class/net",
    );
    spec.network = Network::None;
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(
        outcome.output().starts_with("1\n1\n") && outcome.text().ends_with("\nlo\n"),
        "{}",
        outcome.text()
    );
    let host = std::fs::read_to_string("/proc/self/net/dev").expect("read").lines().count();
    assert_eq!(world.sh("grep -c . /proc/net/dev").output().trim(), host.to_string());
}

#[test]
fn kernel_the_host_is_untouched() {
    let Some(world) = World::new() else { return };
    let host = || {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
        (std::fs::read_to_string("/proc/self/mountinfo").expect("read"), hostname)
    };
    let before = host();
    assert_eq!(world.sh("mkdir /x; hostname").output(), "buildkitsandbox\n");
    assert_eq!(host(), before);
}
