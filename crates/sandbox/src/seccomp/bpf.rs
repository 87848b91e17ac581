// SPDX-License-Identifier: Apache-2.0
//! Translates decisions into classic BPF.
//!
//! The shape of a program: load the architecture; for each one that the host serves, load the number and find
//! it by a binary search over ranges of numbers with the same decision; the leaves return, or load an argument
//! first. Only instructions are used that the kernel can evaluate ahead of time, so that calls that are always
//! permitted don't run the program at all (Linux 5.11 and newer).

use super::profile::{Decision, ENOSYS, EPERM, decide};
use super::tables::Abi;
use super::{HostArch, Instruction, Program};

// linux/bpf_common.h: class, size, mode and operation, added up.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

// linux/seccomp.h: results and the layout of `seccomp_data`.
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// A decision for the numbers from `first` on, up to the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    first: u32,
    decision: Decision,
}

/// Makes the program for a host and a process with these capabilities.
pub(super) fn compile(host: HostArch, capabilities: u64) -> Program {
    let mut instructions = vec![load(OFFSET_ARCH)];
    // ABIs that share an architecture share a search; a marking bit orders them.
    for group in abis(host) {
        let segments = segments(host, capabilities, group);
        let mut body = vec![load(OFFSET_NUMBER)];
        search(host, &segments, &mut body);
        // Conditional jumps reach 255 instructions, unconditional ones all.
        instructions.push(jump_if(JUMP_IF_EQUAL, group[0].audit_arch(), 1, 0));
        instructions.push(jump(body.len()));
        instructions.extend(body);
    }
    instructions.push(errno(EPERM));
    Program { instructions }
}

/// Returns the ABIs of a host, grouped by architecture, each group ascending by its marking.
fn abis(host: HostArch) -> &'static [&'static [Abi]] {
    match host {
        HostArch::X86_64 => &[&[Abi::X86_64, Abi::X32], &[Abi::I386]],
        HostArch::Aarch64 => &[&[Abi::Aarch64], &[Abi::Arm]],
        HostArch::Riscv64 => &[&[Abi::Riscv64]],
        HostArch::Ppc64le => &[&[Abi::Ppc64le]],
        HostArch::S390x => &[&[Abi::S390x]],
        HostArch::Loongarch64 => &[&[Abi::Loongarch64]],
    }
}

/// Returns the decisions for all numbers, as the fewest segments; the first one begins at 0.
fn segments(host: HostArch, capabilities: u64, abis: &[Abi]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut next = 0_u32;
    let mut add = |first: u32, decision: Decision| {
        if segments.last().is_none_or(|last: &Segment| last.decision != decision) {
            segments.push(Segment { first, decision });
        }
    };
    for (number, name) in abis.iter().flat_map(|abi| abi.system_calls()) {
        if number > next {
            // A gap: no system call has this number.
            add(next, Decision::Errno(ENOSYS));
        }
        // A second name of the same number; all of them are decided alike.
        if number + 1 == next {
            continue;
        }
        add(number, decide(host, capabilities, name));
        next = number + 1;
    }
    add(next, Decision::Errno(ENOSYS));
    segments
}

/// Appends the search for the segment that the loaded number lies in.
fn search(host: HostArch, segments: &[Segment], body: &mut Vec<Instruction>) {
    match segments {
        [] => body.push(errno(ENOSYS)),
        [segment] => leaf(host, segment.decision, body),
        _ => {
            let (lower, upper) = segments.split_at(segments.len() / 2);
            let mut left = Vec::new();
            search(host, lower, &mut left);
            let middle = upper[0].first;
            match u8::try_from(left.len()) {
                Ok(skipped) => body.push(jump_if(JUMP_IF_GREATER_OR_EQUAL, middle, skipped, 0)),
                Err(_) => {
                    body.push(jump_if(JUMP_IF_GREATER_OR_EQUAL, middle, 0, 1));
                    body.push(jump(left.len()));
                }
            }
            body.extend(left);
            search(host, upper, body);
        }
    }
}

/// Appends the end of a search.
fn leaf(host: HostArch, decision: Decision, body: &mut Vec<Instruction>) {
    match decision {
        Decision::Allow => body.push(allow()),
        Decision::Errno(number) => body.push(errno(number)),
        Decision::AllowIfWithin { argument, ranges } => {
            body.push(load_argument(host, argument));
            for (first, last) in ranges {
                if first == last {
                    body.push(jump_if(JUMP_IF_EQUAL, *first, 0, 1));
                } else {
                    body.push(jump_if(JUMP_IF_GREATER_OR_EQUAL, *first, 0, 2));
                    body.push(jump_if(JUMP_IF_GREATER, *last, 1, 0));
                }
                body.push(allow());
            }
            body.push(errno(EPERM));
        }
        Decision::AllowIfClear { argument, mask } => {
            body.push(load_argument(host, argument));
            body.push(jump_if(JUMP_IF_BITS, mask, 1, 0));
            body.push(allow());
            body.push(errno(EPERM));
        }
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

/// Loads the lower half of an argument, which is all that the kernel reads of those we compare.
fn load_argument(host: HostArch, argument: u8) -> Instruction {
    let lower_half = if host == HostArch::S390x { 4 } else { 0 };
    load(OFFSET_ARGUMENTS + 8 * u32::from(argument) + lower_half)
}

fn jump_if(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn jump(distance: usize) -> Instruction {
    // A program has a few thousand instructions at most; the test of its length holds for every host.
    Instruction { code: JUMP, jt: 0, jf: 0, k: u32::try_from(distance).unwrap_or(u32::MAX) }
}

fn allow() -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: RET_ALLOW }
}

fn errno(number: u16) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: RET_ERRNO | u32::from(number) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::DEFAULT_CAPABILITIES;
    use super::*;

    /// What the kernel passes to a filter.
    struct Call {
        arch: u32,
        number: u32,
        arguments: [u64; 6],
    }

    /// Runs a program as the kernel does; panics where the kernel's checker would refuse it.
    fn interpret(program: &Program, is_big_endian: bool, call: &Call) -> u32 {
        let load = |offset: u32| -> u32 {
            match offset {
                0 => call.number,
                4 => call.arch,
                16..64 if offset.is_multiple_of(4) => {
                    let argument = call.arguments[(offset as usize - 16) / 8];
                    let is_first_half = offset.is_multiple_of(8);
                    if is_first_half == is_big_endian { (argument >> 32) as u32 } else { argument as u32 }
                }
                _ => panic!("load from {offset}"),
            }
        };
        let (mut counter, mut accumulator) = (0_usize, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program.instructions()[counter];
            let either = |condition: bool| usize::from(if condition { jt } else { jf });
            counter += 1;
            match code {
                0x20 => accumulator = load(k),
                0x05 => counter += k as usize,
                0x15 => counter += either(accumulator == k),
                0x25 => counter += either(accumulator > k),
                0x35 => counter += either(accumulator >= k),
                0x45 => counter += either(accumulator & k != 0),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const HOSTS: [HostArch; 6] = [
        HostArch::X86_64,
        HostArch::Aarch64,
        HostArch::Riscv64,
        HostArch::Ppc64le,
        HostArch::S390x,
        HostArch::Loongarch64,
    ];

    /// Values around every bound that a rule has, with and without rubbish in the upper half.
    fn arguments() -> Vec<u64> {
        let low = [
            0,
            1,
            7,
            8,
            9,
            12,
            36,
            37,
            38,
            39,
            40,
            41,
            45,
            0x1_ffff,
            0x2_0000,
            0x2_0008,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
            0x8000_0000,
            0x003d_0f00,
            0xffff_fffe,
            0xffff_ffff_u64,
        ];
        low.iter().flat_map(|value| [*value, value | 0xdead_beef_0000_0000]).collect()
    }

    /// What the rules say about a call, without segments, searches or instructions.
    fn expected(decision: Decision, arguments: &[u64; 6]) -> u32 {
        let low = |argument: u8| (arguments[usize::from(argument)] & 0xffff_ffff) as u32;
        let is_allowed = match decision {
            Decision::Allow => true,
            Decision::Errno(number) => return 0x5_0000 + u32::from(number),
            Decision::AllowIfWithin { argument, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&low(argument)))
            }
            Decision::AllowIfClear { argument, mask } => low(argument) & mask == 0,
        };
        if is_allowed { 0x7fff_0000 } else { 0x5_0001 }
    }

    #[test]
    fn every_call_of_every_abi_is_decided_as_the_rules_say() {
        for host in HOSTS {
            for capabilities in [DEFAULT_CAPABILITIES, 0, u64::MAX] {
                let program = compile(host, capabilities);
                for abi in abis(host).iter().copied().flatten() {
                    let names: BTreeMap<u32, &str> = abi.system_calls().collect();
                    let last = *names.keys().last().unwrap();
                    // Also the gaps and what follows the last number; of Arm's two ranges the whole of each.
                    let numbers = (abi.marking()..=abi.marking() + 700).chain(last - 10..=last + 10);
                    for number in numbers.chain([abi.marking() | 0x3fff_ffff]) {
                        let decision = names
                            .get(&number)
                            .map_or(Decision::Errno(ENOSYS), |name| decide(host, capabilities, name));
                        for value in arguments() {
                            // The other argument is harmless, so that a filter that looks at it is found out.
                            for position in [0, 1] {
                                let mut arguments = [0; 6];
                                arguments[position] = value;
                                let call = Call { arch: abi.audit_arch(), number, arguments };
                                assert_eq!(
                                    interpret(&program, host == HostArch::S390x, &call),
                                    expected(decision, &arguments),
                                    "{host:?} {abi:?} {number} {:?} {arguments:x?}",
                                    names.get(&number)
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn foreign_architectures_fail_and_are_not_killed() {
        for host in HOSTS {
            let program = compile(host, DEFAULT_CAPABILITIES);
            for arch in [0, 8, 0x4000_0008, 0x8000_0015, 0xffff_ffff] {
                let call = Call { arch, number: 0, arguments: [0; 6] };
                assert_eq!(interpret(&program, false, &call), 0x5_0001, "{host:?} {arch:#x}");
            }
            for instruction in program.instructions() {
                if instruction.code == RETURN {
                    assert!([0x7fff_0000, 0x5_0001, 0x5_0026].contains(&instruction.k), "{instruction:?}");
                }
            }
        }
    }

    #[test]
    fn programs_fit_the_kernel_and_searches_are_short() {
        for host in HOSTS {
            let program = compile(host, DEFAULT_CAPABILITIES);
            // BPF_MAXINSNS; the last instruction must be a return, and jumps only go forward.
            assert!(program.instructions().len() < 4096, "{host:?}");
            assert_eq!(program.instructions().last().unwrap().code, RETURN);
            for (position, instruction) in program.instructions().iter().enumerate() {
                let reach = match instruction.code {
                    JUMP => instruction.k as usize,
                    JUMP_IF_EQUAL | JUMP_IF_GREATER | JUMP_IF_GREATER_OR_EQUAL | JUMP_IF_BITS => {
                        usize::from(instruction.jt.max(instruction.jf))
                    }
                    _ => 0,
                };
                assert!(position + 1 + reach <= program.instructions().len(), "{host:?} {position}");
            }
        }
    }

    #[test]
    fn names_of_one_number_are_decided_alike() {
        for host in HOSTS {
            for abi in abis(host).iter().copied().flatten() {
                let calls: Vec<(u32, &str)> = abi.system_calls().collect();
                for pair in calls.windows(2) {
                    if pair[0].0 == pair[1].0 {
                        let decide = |name| decide(host, DEFAULT_CAPABILITIES, name);
                        assert_eq!(decide(pair[0].1), decide(pair[1].1), "{abi:?} {pair:?}");
                    }
                }
            }
        }
    }
}
