// SPDX-License-Identifier: Apache-2.0
//! What expressions can name: variables, and functions of the file.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::ast::Expression;
use super::bounds;
use super::value::Value;

/// How much work one evaluation of files may be; a file that needs more is hostile or broken.
const BUDGET: u64 = 50_000_000;
/// How many bytes of a value are as much work as one step; with the budget, a cap on all memory as well.
const BYTES_PER_STEP: usize = 16;
/// How deep calls of the file's functions may be nested.
const MAX_CALLS: u32 = 20;

/// A function of the file.
#[derive(Debug)]
pub struct UserFunction {
    /// Names of its parameters.
    pub parameters: Vec<String>,
    /// Name of the list of further arguments.
    pub variadic: Option<String>,
    /// Its result.
    pub result: Expression,
}

/// What the functions may know of the world.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The user's home directory.
    pub home: String,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// The names of the files.
#[derive(Debug)]
pub struct Globals {
    /// Variables and blocks.
    pub variables: BTreeMap<String, Value>,
    /// Functions of the files.
    pub functions: BTreeMap<String, Rc<UserFunction>>,
    /// What the built-in functions may know.
    pub world: World,
    budget: Cell<u64>,
    calls: Cell<u32>,
}

impl Globals {
    /// Nothing but the world.
    pub fn new(world: World) -> Globals {
        Globals {
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            world,
            budget: Cell::new(BUDGET),
            calls: Cell::new(0),
        }
    }

    /// Counts work.
    ///
    /// # Errors
    /// There was too much of it.
    pub fn spend(&self, amount: usize) -> Result<(), String> {
        let left = self.budget.get().checked_sub(amount as u64 + 1);
        self.budget.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| "evaluating the files takes too much work".to_owned())
    }

    /// Counts a value that has been made, as work, and checks how large it is.
    ///
    /// # Errors
    /// It is too large, or there was too much work.
    pub fn account(&self, value: &Value) -> Result<(), String> {
        self.spend(bounds::check(value)? / BYTES_PER_STEP)
    }

    /// Goes into a function of the file; [`Globals::leave`] goes out again.
    ///
    /// # Errors
    /// Calls are nested too deeply.
    pub fn enter(&self) -> Result<(), String> {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() > MAX_CALLS {
            return Err("function calls are nested too deeply".to_owned());
        }
        Ok(())
    }

    /// Goes out of a function of the file.
    pub fn leave(&self) {
        self.calls.set(self.calls.get().saturating_sub(1));
    }
}

/// The names that an expression sees.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The names of the files.
    pub globals: &'a Globals,
    /// Names that hide those of the files.
    pub locals: &'a BTreeMap<String, Value>,
    /// Names behind the local ones.
    pub outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    /// Finds a name.
    pub fn variable(&self, name: &str) -> Option<&Value> {
        self.locals
            .get(name)
            .or_else(|| self.outer.and_then(|outer| outer.local(name)))
            .or_else(|| self.globals.variables.get(name))
    }

    fn local(&self, name: &str) -> Option<&Value> {
        self.locals.get(name).or_else(|| self.outer.and_then(|outer| outer.local(name)))
    }

    /// All names, for suggestions.
    pub fn names(&self) -> Vec<&str> {
        self.locals.keys().chain(self.globals.variables.keys()).map(String::as_str).collect()
    }
}
