// SPDX-License-Identifier: Apache-2.0
//! Numbers as HCL has them: binary floating point of 512 bits, so that decimal literals and large
//! integers come out as they went in.
//!
//! A number is `mantissa * 2^exponent`, with the precision it was made with; results have the larger
//! precision of the operands, as in Go's `math/big`, because the precision decides how many digits a
//! fraction has as text.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint, Sign};

/// Precision of literals, in bits.
const LITERAL_PRECISION: u32 = 512;
/// Largest power of ten of a literal; far beyond what a build file needs, and cheap to compute.
const MAX_EXPONENT: i64 = 4096;
/// Largest power of two that a number may be near to, as of a quadruple; what is beyond takes memory and
/// time as text, and means nothing.
const MAX_BITS: i64 = 1 << 14;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFault {
    /// A division by zero.
    DivisionByZero,
    /// The result is larger than numbers can be.
    OutOfRange,
}

/// A number.
#[derive(Debug, Clone)]
pub struct Number {
    mantissa: BigInt,
    exponent: i64,
    precision: u32,
}

impl Number {
    fn new(mantissa: BigInt, exponent: i64, precision: u32) -> Number {
        Number { mantissa, exponent, precision }.rounded(false)
    }

    /// Rounds to the precision, to nearest, ties to even. `sticky` tells of cut-off bits below.
    fn rounded(mut self, sticky: bool) -> Number {
        let bits = self.mantissa.bits();
        if bits > u64::from(self.precision) {
            let shift = bits - u64::from(self.precision);
            let sign = self.mantissa.sign();
            let magnitude = self.mantissa.magnitude();
            let mut kept = magnitude >> shift;
            let rest = magnitude - (&kept << shift);
            let half = BigUint::from(1u8) << (shift - 1);
            let up = match rest.cmp(&half) {
                Ordering::Greater => true,
                Ordering::Equal => sticky || kept.bit(0),
                Ordering::Less => false,
            };
            if up {
                kept += 1u8;
            }
            self.mantissa = BigInt::from_biguint(sign, kept);
            self.exponent += i64::try_from(shift).unwrap_or(i64::MAX / 4);
        }
        match self.mantissa.trailing_zeros() {
            None => self.exponent = 0,
            Some(0) => {}
            Some(zeros) => {
                self.mantissa >>= zeros;
                self.exponent += i64::try_from(zeros).unwrap_or(i64::MAX / 4);
            }
        }
        self
    }

    /// Refuses what is too large; what is too close to zero becomes zero.
    fn in_range(self) -> Result<Number, NumberFault> {
        let bits = i64::try_from(self.mantissa.bits()).unwrap_or(i64::MAX / 4);
        match self.exponent.saturating_add(bits) {
            magnitude if magnitude > MAX_BITS => Err(NumberFault::OutOfRange),
            magnitude if magnitude < -MAX_BITS => {
                Ok(Number { mantissa: BigInt::ZERO, exponent: 0, precision: self.precision })
            }
            _ => Ok(self),
        }
    }

    /// Reads a decimal literal: digits, a fraction, an exponent.
    pub fn parse(text: &str) -> Option<Number> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, power) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty()
            || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
            || whole.len() + fraction.len() > 4096
            || power.abs() > MAX_EXPONENT
        {
            return None;
        }
        let mut mantissa = BigInt::parse_bytes(format!("0{whole}{fraction}").as_bytes(), 10)?;
        if negative {
            mantissa = -mantissa;
        }
        let power = power - i64::try_from(fraction.len()).ok()?;
        let scale = BigInt::from(10u8).pow(u32::try_from(power.unsigned_abs()).ok()?);
        if power >= 0 {
            return Number::new(mantissa * scale, 0, LITERAL_PRECISION).in_range().ok();
        }
        quotient(&mantissa, &scale, 0, LITERAL_PRECISION).in_range().ok()
    }

    /// A double; `None` for infinities and for what is not a number.
    pub fn from_f64(value: f64) -> Option<Number> {
        if !value.is_finite() {
            return None;
        }
        let bits = value.to_bits();
        let raw_exponent = i64::try_from((bits >> 52) & 0x7ff).ok()?;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if raw_exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), raw_exponent - 1075) };
        let mut mantissa = BigInt::from(mantissa);
        if value < 0.0 {
            mantissa = -mantissa;
        }
        Some(Number::new(mantissa, exponent, 53))
    }

    /// The nearest double.
    pub fn to_f64(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    /// Tells whether there is no fraction.
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// The value as an integer of the machine, if it is one.
    pub fn to_i64(&self) -> Option<i64> {
        if !(0..64).contains(&self.exponent) {
            return None;
        }
        i64::try_from(&self.mantissa << self.exponent).ok()
    }

    /// The value as an index, if it is one.
    pub fn to_index(&self) -> Option<usize> {
        self.to_i64().and_then(|value| usize::try_from(value).ok())
    }

    /// The whole part, rounded towards minus infinity.
    pub fn floor(&self) -> Number {
        if self.is_integer() {
            return self.clone();
        }
        // An arithmetic shift rounds down.
        Number::new(&self.mantissa >> self.exponent.unsigned_abs().min(1 << 20), 0, self.precision)
    }

    /// The whole part, rounded towards plus infinity.
    pub fn ceil(&self) -> Number {
        self.negate().floor().negate()
    }

    /// The whole part, rounded towards zero.
    pub fn truncate(&self) -> Number {
        if self.is_negative() { self.ceil() } else { self.floor() }
    }

    /// Tells whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.mantissa.sign() == Sign::Minus
    }

    /// Tells whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa.sign() == Sign::NoSign
    }

    /// Changes the sign.
    pub fn negate(&self) -> Number {
        Number { mantissa: -&self.mantissa, ..self.clone() }
    }

    /// The absolute value.
    pub fn absolute(&self) -> Number {
        if self.is_negative() { self.negate() } else { self.clone() }
    }

    /// The sum.
    ///
    /// # Errors
    /// It is out of range.
    pub fn add(&self, other: &Number) -> Result<Number, NumberFault> {
        self.sum(other).in_range()
    }

    fn sum(&self, other: &Number) -> Number {
        let precision = self.precision.max(other.precision);
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        // Both are in range, so this is a few thousand bytes at most.
        let shift = high.exponent - low.exponent;
        Number::new((&high.mantissa << shift) + &low.mantissa, low.exponent, precision)
    }

    /// The difference.
    ///
    /// # Errors
    /// It is out of range.
    pub fn subtract(&self, other: &Number) -> Result<Number, NumberFault> {
        self.add(&other.negate())
    }

    /// The product. Its precision grows where that keeps it exact, up to the one of literals.
    ///
    /// # Errors
    /// It is out of range.
    pub fn multiply(&self, other: &Number) -> Result<Number, NumberFault> {
        let product = Number::new(
            &self.mantissa * &other.mantissa,
            self.exponent.saturating_add(other.exponent),
            LITERAL_PRECISION,
        );
        let needed = u32::try_from(product.mantissa.bits()).unwrap_or(LITERAL_PRECISION);
        let precision = self.precision.max(other.precision).max(needed);
        Number { precision, ..product }.in_range()
    }

    /// The quotient.
    ///
    /// # Errors
    /// A division by zero, or a result out of range.
    pub fn divide(&self, other: &Number) -> Result<Number, NumberFault> {
        if other.is_zero() {
            return Err(NumberFault::DivisionByZero);
        }
        let precision = self.precision.max(other.precision);
        quotient(&self.mantissa, &other.mantissa, self.exponent - other.exponent, precision).in_range()
    }

    /// The remainder of a division whose quotient is rounded towards zero.
    ///
    /// # Errors
    /// A division by zero, or a quotient out of range.
    pub fn modulo(&self, other: &Number) -> Result<Number, NumberFault> {
        let whole = self.divide(other)?.truncate();
        self.subtract(&whole.multiply(other)?)
    }

    /// The value in decimal, with as many digits as tell it from its neighbours, and no exponent.
    pub fn text(&self) -> String {
        let sign = if self.is_negative() { "-" } else { "" };
        if self.is_integer() {
            return format!("{sign}{}", self.mantissa.magnitude() << self.exponent);
        }
        format!("{sign}{}", shortest_fraction(self.mantissa.magnitude(), self.exponent, self.precision))
    }

    /// How long its text can be, and at least what it takes itself.
    pub fn text_bytes(&self) -> usize {
        // A fraction has at most as many digits as there are bits behind the point.
        let bits = self.mantissa.bits().saturating_add(self.exponent.unsigned_abs());
        usize::try_from(if self.is_integer() { bits / 3 } else { bits }).unwrap_or(usize::MAX)
    }

    /// The integer behind it, if it is one of reasonable size.
    pub fn to_big_int(&self) -> Option<BigInt> {
        (0..1 << 13).contains(&self.exponent).then(|| &self.mantissa << self.exponent)
    }

    /// Makes a number of an integer.
    ///
    /// # Errors
    /// It is out of range.
    pub fn from_big_int(value: BigInt) -> Result<Number, NumberFault> {
        Number::new(value, 0, LITERAL_PRECISION).in_range()
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::new(BigInt::from(value), 0, 64)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::new(BigInt::from(value), 0, 64)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        let difference = self.sum(&other.negate());
        match difference.mantissa.sign() {
            Sign::Minus => Ordering::Less,
            Sign::NoSign => Ordering::Equal,
            Sign::Plus => Ordering::Greater,
        }
    }
}

/// `numerator / denominator * 2^exponent`; the denominator is not zero.
fn quotient(numerator: &BigInt, denominator: &BigInt, exponent: i64, precision: u32) -> Number {
    let shift = (u64::from(precision) + 2 + denominator.bits()).saturating_sub(numerator.bits());
    let shifted = numerator << shift;
    let whole = &shifted / denominator;
    let sticky = &whole * denominator != shifted;
    let exponent = exponent - i64::try_from(shift).unwrap_or(i64::MAX / 4);
    Number { mantissa: whole, exponent, precision }.rounded(sticky)
}

/// Writes `magnitude * 2^exponent`, which has a fraction, with the fewest digits that still lie closer to
/// it than to any other number of the precision.
fn shortest_fraction(magnitude: &BigUint, exponent: i64, precision: u32) -> String {
    // The number in units of a quarter of its last place: then the borders are whole.
    let spare = u64::from(precision).saturating_sub(magnitude.bits()) + 2;
    let value = magnitude << spare;
    let scale_bits = exponent.unsigned_abs() + spare;
    let half = BigUint::from(2u8);
    let (low, high) = (&value - &half, &value + &half);
    let scale = BigUint::from(1u8) << scale_bits;
    let mut whole = &value / &scale;
    let mut rest = &value % &scale;
    let mut distance_down = &value - low;
    let mut distance_up = high - &value;
    let mut digits = String::new();
    loop {
        rest *= 10u8;
        distance_down *= 10u8;
        distance_up *= 10u8;
        let digit = &rest / &scale;
        rest %= &scale;
        let near_down = rest < distance_down;
        let near_up = &rest + &distance_up > scale;
        let digit = u8::try_from(&digit).unwrap_or(9);
        let up = match (near_down, near_up) {
            (false, false) => {
                digits.push(char::from(b'0' + digit));
                continue;
            }
            (true, false) => false,
            (false, true) => true,
            (true, true) => &rest * 2u8 >= scale,
        };
        digits.push(char::from(b'0' + digit));
        if up {
            increment(&mut digits, &mut whole);
        }
        break;
    }
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { whole.to_string() } else { format!("{whole}.{digits}") }
}

/// Adds one to the last of the digits after the point.
fn increment(digits: &mut String, whole: &mut BigUint) {
    let mut bytes: Vec<u8> = digits.bytes().collect();
    for byte in bytes.iter_mut().rev() {
        if *byte == b'9' {
            *byte = b'0';
        } else {
            *byte += 1;
            *digits = bytes.into_iter().map(char::from).collect();
            return;
        }
    }
    *digits = bytes.into_iter().map(char::from).collect();
    *whole += 1u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect("a number of the test")
    }

    #[test]
    fn literals_come_out_as_they_went_in() {
        for text in ["0", "1", "-7", "0.1", "1.5", "3.14159", "123456789012345678901234567890", "0.001"] {
            assert_eq!(number(text).text(), text);
        }
        assert_eq!(number("1e3").text(), "1000");
        assert_eq!(number("25e-1").text(), "2.5");
        assert!(Number::parse("1e99999999").is_none());
        assert!(Number::parse("1e4096").is_some());
        assert!(Number::parse(&format!("{}e4000", "9".repeat(1000))).is_none());
        assert!(Number::parse("").is_none());
    }

    #[test]
    fn arithmetic_has_the_precision_of_literals() {
        let text = |result: Result<Number, NumberFault>| result.expect("a number").text();
        assert_eq!(text(number("0.1").add(&number("0.2"))), "0.3");
        assert_eq!(text(number("7").divide(&number("2"))), "3.5");
        assert_eq!(text(number("7").modulo(&number("3"))), "1");
        assert_eq!(text(number("-7").modulo(&number("3"))), "-1");
        assert_eq!(text(number("1.5").multiply(&number("4"))), "6");
        assert_eq!(number("1").divide(&number("0")), Err(NumberFault::DivisionByZero));
    }

    #[test]
    fn results_have_a_range() {
        let (large, small) = (number("1e4096"), number("1e-4096"));
        assert_eq!(large.multiply(&large), Err(NumberFault::OutOfRange));
        assert_eq!(large.divide(&small), Err(NumberFault::OutOfRange));
        assert_eq!(large.modulo(&small), Err(NumberFault::OutOfRange));
        assert_eq!(Number::from_big_int(BigInt::from(1) << 20_000), Err(NumberFault::OutOfRange));
        // As far as adding leads it.
        let sum = (0..20_000).try_fold(large.clone(), |sum, _| sum.add(&sum));
        assert_eq!(sum, Err(NumberFault::OutOfRange));
        // What is too close to zero is zero, as in other floating point.
        assert!(small.multiply(&small).expect("zero").is_zero());
        assert!(small.divide(&large).expect("zero").is_zero());
        assert!(large > small && small > number("0"));
        assert_eq!(large.add(&small).expect("in range").text(), large.text());
        for edge in [&large, &small] {
            assert!(edge.text().len() <= edge.text_bytes() + 3);
        }
    }

    #[test]
    fn doubles_are_written_with_the_digits_of_doubles() {
        for value in [0.1, 1.0 / 3.0, 2.5, 1e21, 123_456.789] {
            let text = Number::from_f64(value).expect("finite").text();
            assert_eq!(text.parse::<f64>().expect("a number"), value);
        }
        assert_eq!(Number::from_f64(0.1).expect("finite").text(), "0.1");
    }

    #[test]
    fn rounding_knows_the_sign() {
        assert_eq!(number("-1.5").floor().text(), "-2");
        assert_eq!(number("-1.5").ceil().text(), "-1");
        assert_eq!(number("-1.5").truncate().text(), "-1");
        assert_eq!(number("1.5").ceil().text(), "2");
        assert!(number("-2") < number("1.5"));
    }
}
