// SPDX-License-Identifier: Apache-2.0
//! Ports of EXPOSE: `80`, `53/udp`, `8000-8010/tcp`; a host address and port in front are read and dropped.

use super::ValueError;

/// Reads a word of EXPOSE and returns each port by itself, `80/tcp`.
///
/// # Errors
/// Not a port, a range from high to low, another protocol than tcp, udp or sctp.
pub fn parse(text: &str) -> Result<Vec<String>, ValueError> {
    let error = |reason| ValueError::Port { text: text.to_owned(), reason };
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (host, container),
        None => ("", text),
    };
    let (address, host_ports) = host.rsplit_once(':').unwrap_or(("", host));
    let (ports, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    if ports.is_empty() {
        return Err(error("no port specified"));
    }
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(error("protocol must be tcp, udp or sctp"));
    }
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(error("host address is not an IP address"));
    }
    let (first, last) = range(ports).map_err(error)?;
    if !host_ports.is_empty() {
        let (host_first, host_last) = range(host_ports).map_err(error)?;
        if first != last && last - first != host_last - host_first {
            return Err(error("host and container ranges differ in length"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first { Err("range ends before it begins") } else { Ok((first, last)) }
}

fn number(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "must be a number from 0 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, ports) in [
            ("80", vec!["80/tcp"]),
            ("80/", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("9/sctp", vec!["9/sctp"]),
            ("8000-8002/udp", vec!["8000/udp", "8001/udp", "8002/udp"]),
            ("7-7", vec!["7/tcp"]),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80", vec!["80/tcp"]),
            ("[::1]:8080:80/udp", vec!["80/udp"]),
            ("127.0.0.1::80", vec!["80/tcp"]),
            ("8000-8001:80-81", vec!["80/tcp", "81/tcp"]),
            ("8000-8009:80", vec!["80/tcp"]),
        ] {
            assert_eq!(
                parse(text).as_deref(),
                Ok(ports.iter().map(|&port| port.to_owned()).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
        }
        for text in [
            "",
            "/tcp",
            "a",
            "65536",
            "-1",
            "90-80",
            "80/icmp",
            "x:1:2",
            "8000-8001:80-82",
            "1-2-3",
            "80/tcp/udp",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
