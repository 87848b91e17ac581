// SPDX-License-Identifier: Apache-2.0
//! Evaluates what the files define, each thing when something needs it.
//!
//! Variables, functions and attributes of blocks may refer to each other in any order, across files. Each
//! is evaluated once; what is asked for while it is being evaluated is a cycle and an error. A block with a
//! `matrix` has several values, each with its own names.

mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::ast::Expression;
use super::bounds;
use super::decode;
use super::definition::{Definition, Resource, ResourceKind};
use super::dependencies::{calls, references};
use super::evaluate::{entries, evaluate};
use super::functions;
use super::scope::{Globals, Scope, UserFunction, World};
use super::source::{Fault, Span};
use super::target::{Group, Target};
use super::value::{Type, Value};
pub use variables::VariableInfo;

/// Names that hide those of the files.
pub type Locals = Rc<BTreeMap<String, Value>>;

/// How deep references may be nested.
const MAX_DEPTH: usize = 200;
/// How many targets a matrix may give.
const MAX_MATRIX: usize = 10_000;

/// What the definition gets from outside.
pub struct Inputs<'a> {
    /// Variables that are always there, and can't be given.
    pub built_in: &'a BTreeMap<String, String>,
    /// Finds the text that a variable is given.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// What functions may know.
    pub world: World,
}

/// A value of a block.
#[derive(Debug, Clone)]
pub enum Output {
    /// Of a group.
    Group(Group),
    /// Of a target.
    Target(Box<Target>),
}

/// How far a value of a block is.
struct Instance {
    locals: Locals,
    name: String,
    output: Output,
    begun: BTreeSet<String>,
    done: BTreeSet<String>,
}

/// Evaluates a definition.
pub struct Resolver<'a> {
    definition: &'a Definition,
    inputs: Inputs<'a>,
    globals: Globals,
    /// The values of blocks, once their matrix is known.
    instances: Vec<Option<Vec<Instance>>>,
    /// The blocks of a name; known once all names are.
    named: BTreeMap<(ResourceKind, String), Vec<usize>>,
    blocks_are_known: bool,
    begun_variables: BTreeSet<String>,
    begun_functions: BTreeSet<String>,
    types: BTreeMap<String, Type>,
    depth: usize,
}

impl<'a> Resolver<'a> {
    /// Begins.
    pub fn new(definition: &'a Definition, inputs: Inputs<'a>) -> Resolver<'a> {
        let globals = Globals::new(inputs.world.clone());
        Resolver {
            definition,
            inputs,
            globals,
            instances: definition.blocks.iter().map(|_| None).collect(),
            named: BTreeMap::new(),
            blocks_are_known: false,
            begun_variables: BTreeSet::new(),
            begun_functions: BTreeSet::new(),
            types: BTreeMap::new(),
            depth: 0,
        }
    }

    fn is_reserved(&self, name: &str) -> bool {
        ResourceKind::of_word(name).is_some() || self.inputs.built_in.contains_key(name)
    }

    fn value(&self, expression: &Expression, locals: &Locals) -> Result<Value, Fault> {
        evaluate(expression, &Scope { globals: &self.globals, locals, outer: None })
    }

    /// Evaluates the blocks. Returns each block's label with its values, in order.
    ///
    /// # Errors
    /// What can't be evaluated.
    pub fn blocks(&mut self) -> Result<Vec<(usize, Vec<Output>)>, Fault> {
        self.blocks_are_known = true;
        let definition = self.definition;
        let mut named: BTreeMap<(ResourceKind, String), Vec<usize>> = BTreeMap::new();
        for (at, block) in definition.blocks.iter().enumerate() {
            let names = self.names(at).map_err(|fault| fault.placed("Invalid name", block.label_span))?;
            for name in names {
                named.entry((block.kind, name)).or_default().push(at);
            }
        }
        self.named = named;
        let mut results = Vec::new();
        for (at, block) in definition.blocks.iter().enumerate() {
            self.resolve_block(at, None).map_err(|fault| fault.placed("Invalid block", block.label_span))?;
            let outputs = self.instances[at].iter().flatten().map(|instance| instance.output.clone());
            results.push((at, outputs.collect()));
        }
        let none = Locals::default();
        for (name, span, _) in &definition.attributes {
            if !self.is_reserved(name) && name != "function" {
                self.resolve_value(&none, name).map_err(|fault| fault.placed("Invalid attribute", *span))?;
            }
        }
        Ok(results)
    }

    /// Sees to it that everything an expression names has been evaluated.
    fn load(
        &mut self,
        locals: &Locals,
        expression: &Expression,
        bound: &[String],
        forgives_missing: bool,
    ) -> Result<(), Fault> {
        let forgive = |result: Result<(), Fault>| match result {
            Err(fault) if forgives_missing && fault.is_undefined => Ok(()),
            Err(fault) => Err(fault.placed("Invalid expression", expression.span)),
            Ok(()) => Ok(()),
        };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::at(expression.span, "Invalid expression", "references are nested too deeply"));
        }
        for name in calls(expression) {
            let result = self.resolve_function(&name);
            forgive(result)?;
        }
        for reference in references(expression) {
            if bound.contains(&reference.root) || locals.contains_key(&reference.root) {
                continue;
            }
            let kind = ResourceKind::of_word(&reference.root).filter(|_| self.blocks_are_known);
            let Some(kind) = kind else {
                let result = self.resolve_value(locals, &reference.root);
                forgive(result)?;
                continue;
            };
            let wrong = |detail: String| Fault::at(expression.span, "Invalid expression", detail);
            let name = match reference.steps.first() {
                None => return Err(wrong(format!("cannot access {} as a variable", kind.word()))),
                Some(None) => {
                    return Err(wrong(format!("cannot traverse {} without attribute", kind.word())));
                }
                Some(Some(name)) => name.clone(),
            };
            let attribute = reference.steps.get(1).cloned().flatten();
            for block in self.named.get(&(kind, name)).cloned().unwrap_or_default() {
                let result = self.resolve_block(block, attribute.as_deref());
                forgive(result)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn resolve_function(&mut self, name: &str) -> Result<(), Fault> {
        if functions::is_built_in(name) || self.globals.functions.contains_key(name) {
            return Ok(());
        }
        let definition = self.definition;
        let Some(function) = definition.functions.iter().find(|function| function.name == name) else {
            return Err(Fault::undefined(format!("function {name:?} does not exist")));
        };
        if !self.begun_functions.insert(name.to_owned()) {
            return Err(Fault::plain(format!("function cycle not allowed for {name}")));
        }
        let Some(result) = &function.result else {
            return Err(Fault::plain(format!("empty result not allowed for {name}")));
        };
        let bound: Vec<String> = function.parameters.iter().chain(&function.variadic).cloned().collect();
        self.load(&Locals::default(), result, &bound, false)?;
        self.globals.functions.insert(
            name.to_owned(),
            Rc::new(UserFunction {
                parameters: function.parameters.clone(),
                variadic: function.variadic.clone(),
                result: result.clone(),
            }),
        );
        Ok(())
    }

    fn resolve_value(&mut self, locals: &Locals, name: &str) -> Result<(), Fault> {
        if self.globals.variables.contains_key(name) || locals.contains_key(name) {
            return Ok(());
        }
        if let Some(text) = self.inputs.built_in.get(name) {
            self.globals.variables.insert(name.to_owned(), Value::string(text));
            return Ok(());
        }
        if self.begun_variables.contains(name) {
            return Err(Fault::plain(format!("variable cycle not allowed for {name}")));
        }
        let definition = self.definition;
        let value = match definition.attributes.iter().find(|(other, ..)| other == name) {
            Some((_, _, expression)) if !self.is_reserved(name) => {
                self.begun_variables.insert(name.to_owned());
                self.load(locals, expression, &[], true)?;
                self.value(expression, locals)?
            }
            _ => {
                let variable = definition.variables.iter().find(|variable| variable.name == name);
                let variable = variable
                    .filter(|_| !self.is_reserved(name))
                    .ok_or_else(|| Fault::undefined(format!("variable {name:?} does not exist")))?;
                self.begun_variables.insert(name.to_owned());
                self.variable(name, variable.ty.as_ref(), variable.default.as_ref())?
            }
        };
        self.globals.variables.insert(name.to_owned(), value);
        Ok(())
    }

    /// The names that a block's values have, validated.
    fn names(&mut self, at: usize) -> Result<Vec<String>, Fault> {
        let definition = self.definition;
        let block = &definition.blocks[at];
        self.expand(at)?;
        check_name(&block.label)?;
        let name = block.attribute("name");
        let has_matrix = block.attribute("matrix").is_some();
        if block.kind == ResourceKind::Group && name.is_some() {
            return Err(Fault::plain("name is not supported for groups"));
        }
        if name.is_some() && !has_matrix {
            return Err(Fault::plain("name requires matrix"));
        }
        let mut names = Vec::new();
        for index in 0..self.instances[at].as_ref().map_or(0, Vec::len) {
            let mut result = block.label.clone();
            if let Some(expression) = name {
                let locals = self.locals(at, index);
                self.load(&locals, expression, &[], true)?;
                let value = self.value(expression, &locals)?;
                result = super::convert::to_text(&value)
                    .filter(|_| !value.is_null())
                    .ok_or_else(|| Fault::at(expression.span, "Invalid name", "string required"))?;
                check_name(&result)?;
            }
            if names.contains(&result) {
                return Err(Fault::plain(format!("duplicate name {result:?}")));
            }
            if let Some(instance) = self.instance(at, index) {
                instance.name.clone_from(&result);
                match &mut instance.output {
                    Output::Group(group) => group.name.clone_from(&result),
                    Output::Target(target) => target.name.clone_from(&result),
                }
            }
            names.push(result);
        }
        Ok(names)
    }

    fn instance(&mut self, at: usize, index: usize) -> Option<&mut Instance> {
        self.instances[at].as_mut().and_then(|instances| instances.get_mut(index))
    }

    fn locals(&self, at: usize, index: usize) -> Locals {
        let instances = self.instances[at].as_ref();
        instances.and_then(|all| all.get(index)).map(|one| one.locals.clone()).unwrap_or_default()
    }

    /// Evaluates the matrix of a block and makes room for its values.
    fn expand(&mut self, at: usize) -> Result<(), Fault> {
        if self.instances[at].is_some() {
            return Ok(());
        }
        let definition = self.definition;
        let block = &definition.blocks[at];
        let all_locals = match (block.attribute("matrix"), block.kind) {
            (None, _) => vec![Locals::default()],
            (Some(_), ResourceKind::Group) => {
                return Err(Fault::plain("matrix is not supported for groups"));
            }
            (Some(matrix), ResourceKind::Target) => {
                let none = Locals::default();
                self.load(&none, matrix, &[], true)?;
                combinations(&self.value(matrix, &none)?, matrix.span)?
            }
        };
        let instances = all_locals.into_iter().map(|locals| Instance {
            locals,
            name: block.label.clone(),
            output: match block.kind {
                ResourceKind::Group => Output::Group(Group { name: block.label.clone(), ..Group::default() }),
                ResourceKind::Target => Output::Target(Box::new(new_target(block))),
            },
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
        });
        self.instances[at] = Some(instances.collect());
        Ok(())
    }

    /// Evaluates a block, or one attribute of it.
    fn resolve_block(&mut self, at: usize, only: Option<&str>) -> Result<(), Fault> {
        let definition = self.definition;
        let block = &definition.blocks[at];
        self.expand(at)?;
        for index in 0..self.instances[at].as_ref().map_or(0, Vec::len) {
            let locals = self.locals(at, index);
            let Some(instance) = self.instance(at, index) else { continue };
            if let Some(only) = only {
                if instance.done.contains(only) {
                    return Ok(());
                }
                if !instance.begun.insert(only.to_owned()) {
                    return Err(Fault::plain(format!(
                        "reference cycle not allowed for {}.{}.{only}",
                        block.kind.word(),
                        instance.name
                    )));
                }
            }
            let known = match block.kind {
                ResourceKind::Group => decode::GROUP,
                ResourceKind::Target => decode::TARGET,
            };
            let mut wanted: Vec<&(String, Span, Expression)> = Vec::new();
            for attribute in &block.attributes {
                let name = attribute.0.as_str();
                if known.contains(&name)
                    && only.is_none_or(|only| only == name)
                    && !instance.done.contains(name)
                {
                    wanted.push(attribute);
                }
            }
            if block.kind == ResourceKind::Group && only.is_none() && block.attribute("targets").is_none() {
                return Err(Fault::at(
                    block.span,
                    "Missing required argument",
                    "The argument \"targets\" is required, but no definition was found.",
                ));
            }
            for (_, _, expression) in &wanted {
                self.load(&locals, expression, &[], true)?;
            }
            for (name, _, expression) in wanted {
                // It may have been needed by another attribute in the meantime.
                if self.instance(at, index).is_some_and(|instance| instance.done.contains(name)) {
                    continue;
                }
                let value = self.value(expression, &locals)?;
                let Some(instance) = self.instance(at, index) else { continue };
                let result = match &mut instance.output {
                    Output::Group(group) => decode::set_group(group, name, &value),
                    Output::Target(target) => decode::set_target(target, name, &value),
                };
                result.map_err(|problem| {
                    let detail = format!("Unsuitable value: {problem}");
                    Fault::at(expression.span, "Unsuitable value type", detail)
                })?;
                instance.done.insert(name.clone());
            }
            if let Some(only) = only
                && let Some(instance) = self.instance(at, index)
            {
                instance.done.insert(only.to_owned());
            }
            self.publish(block.kind, at, index);
        }
        Ok(())
    }

    /// Lets expressions refer to a value of a block.
    fn publish(&mut self, kind: ResourceKind, at: usize, index: usize) {
        let Some(instance) = self.instance(at, index) else { return };
        let name = instance.name.clone();
        let value = match &instance.output {
            Output::Group(group) => decode::group_value(group),
            Output::Target(target) => decode::target_value(target),
        };
        let all = self
            .globals
            .variables
            .entry(kind.word().to_owned())
            .or_insert_with(|| Value::Object(BTreeMap::new()));
        if let Value::Object(all) = all {
            all.insert(name, value);
        }
    }
}

fn new_target(block: &Resource) -> Target {
    Target { name: block.label.clone(), ..Target::default() }
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_valid =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if is_valid { Ok(()) } else { Err(Fault::plain("only \"[a-zA-Z0-9_-]+\" are allowed")) }
}

/// Each combination of the values of a matrix.
fn combinations(matrix: &Value, span: Span) -> Result<Vec<Locals>, Fault> {
    let wrong = |detail: &str| Fault::at(span, "Invalid matrix", detail);
    let axes = matrix.attributes().ok_or_else(|| wrong("matrix must be a map"))?;
    bounds::check_product(axes.values()).map_err(|problem| wrong(&problem))?;
    let mut all: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new()];
    for (name, values) in axes {
        let values = entries(values).ok_or_else(|| wrong("matrix values must be a list"))?;
        if all.len().saturating_mul(values.len()) > MAX_MATRIX {
            return Err(wrong("the matrix has too many combinations"));
        }
        let with = |(_, value): &(Value, Value), others: &BTreeMap<String, Value>| {
            let mut names = others.clone();
            names.insert(name.clone(), value.clone());
            names
        };
        all = values.iter().flat_map(|value| all.iter().map(move |others| with(value, others))).collect();
    }
    Ok(all.into_iter().map(Rc::new).collect())
}
