// SPDX-License-Identifier: Apache-2.0
//! Networks and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::value::{Type, Value};
use super::{Function, Kind, Parameter, function, integer, number, parameter, text, variadic};

const PREFIX: Parameter = parameter("prefix", Kind::Text);

pub const FUNCTIONS: &[Function] = &[
    function("cidrhost", &[PREFIX, parameter("hostnum", Kind::Number)], |args, _| {
        let network = Network::parse(text(args, 0))?;
        let host = integer(args, 1)?;
        let size = network.size();
        let wrong = || format!("prefix of {} does not accommodate a host numbered {host}", network.length);
        let offset = u128::from(host.unsigned_abs());
        let offset = if host < 0 { size.checked_sub(offset) } else { Some(offset) };
        let offset = offset.filter(|offset| *offset < size).ok_or_else(wrong)?;
        Ok(Value::String(network.address(network.base + offset).to_string()))
    }),
    function("cidrnetmask", &[PREFIX], |args, _| {
        let network = Network::parse(text(args, 0))?;
        if network.bits != 32 {
            return Err("only IPv4 networks have a netmask".to_owned());
        }
        let mask = u32::MAX.checked_shl(32 - network.length).unwrap_or(0);
        Ok(Value::String(Ipv4Addr::from(mask).to_string()))
    }),
    function(
        "cidrsubnet",
        &[PREFIX, parameter("newbits", Kind::Number), parameter("netnum", Kind::Number)],
        |args, _| {
            let network = Network::parse(text(args, 0))?;
            let length = network.longer(integer(args, 1)?)?;
            let wanted = number(args, 2)
                .to_index()
                .ok_or_else(|| "the network number must be a whole number".to_owned())?;
            let more = length - network.length;
            let wanted = wanted as u128;
            if more < 128 && wanted >> more != 0 {
                return Err(format!(
                    "prefix extension of {more} does not accommodate a subnet numbered {wanted}"
                ));
            }
            let base = network.base + wanted.checked_shl(network.bits - length).unwrap_or(0);
            Ok(Value::String(format!("{}/{length}", network.address(base))))
        },
    ),
    variadic("cidrsubnets", &[PREFIX], parameter("newbits", Kind::Number), |args, _| {
        let network = Network::parse(text(args, 0))?;
        let mut subnets = Vec::new();
        let mut offset: u128 = 0;
        for at in 1..args.len() {
            let length = network.longer(integer(args, at)?)?;
            let size = 1u128.checked_shl(network.bits - length).unwrap_or(u128::MAX);
            // Each begins at a multiple of its size.
            offset = offset.div_ceil(size).saturating_mul(size);
            if offset.saturating_add(size) > network.size() {
                return Err(format!(
                    "not enough remaining address space for a subnet with a prefix of {length} bits"
                ));
            }
            subnets.push(Value::String(format!("{}/{length}", network.address(network.base + offset))));
            offset += size;
        }
        Ok(Value::List(Type::String, subnets))
    }),
];

struct Network {
    base: u128,
    length: u32,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Network, String> {
        let wrong = || format!("invalid CIDR expression: invalid CIDR address: {text}");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u32 = length.parse().map_err(|_| wrong())?;
        let (value, bits) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        if length > bits {
            return Err(wrong());
        }
        let low = 1u128.checked_shl(bits - length).map_or(u128::MAX, |size| size - 1);
        Ok(Network { base: value & !low, length, bits })
    }

    /// How many addresses it has; one too few for all of IPv6.
    fn size(&self) -> u128 {
        1u128.checked_shl(self.bits - self.length).unwrap_or(u128::MAX)
    }

    fn longer(&self, more: i64) -> Result<u32, String> {
        let more = u32::try_from(more).ok().filter(|more| self.length + more.min(&256) <= self.bits);
        more.map(|more| self.length + more)
            .ok_or_else(|| format!("insufficient address space to extend prefix of {}", self.length))
    }

    fn address(&self, value: u128) -> IpAddr {
        if self.bits == 32 {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(0)))
        } else {
            IpAddr::V6(Ipv6Addr::from(value))
        }
    }
}
