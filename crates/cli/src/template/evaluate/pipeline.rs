// SPDX-License-Identifier: Apache-2.0
//! What pipelines give: operands, functions, fields.

use std::borrow::Cow;

use polyarch_oci::platform::did_you_mean;

use super::Renderer;
use crate::template::functions::Shared;
use crate::template::parse::{Operand, OperandKind, Pipeline};
use crate::template::{Place, TemplateError, Value};

impl<'v> Renderer<'v> {
    pub(super) fn pipeline(
        &mut self,
        dot: &Shared<'v>,
        pipeline: &'v Pipeline,
    ) -> Result<Shared<'v>, TemplateError> {
        let value = self.commands(dot, pipeline)?;
        for name in &pipeline.variables {
            self.count_value(&value)?;
            self.set(name, value.clone(), pipeline.is_declaration);
        }
        Ok(value)
    }

    pub(super) fn commands(
        &mut self,
        dot: &Shared<'v>,
        pipeline: &'v Pipeline,
    ) -> Result<Shared<'v>, TemplateError> {
        self.deeper(|renderer| {
            let mut last = None;
            for command in &pipeline.commands {
                last = Some(renderer.command(dot, command, last.take())?);
            }
            Ok(last.unwrap_or(Cow::Owned(Value::Null)))
        })
    }

    fn command(
        &mut self,
        dot: &Shared<'v>,
        operands: &'v [Operand],
        last: Option<Shared<'v>>,
    ) -> Result<Shared<'v>, TemplateError> {
        self.step()?;
        // The parser makes no command without a word.
        let Some((first, rest)) = operands.split_first() else { return Ok(Cow::Owned(Value::Null)) };
        if let OperandKind::Function(name) = &first.kind {
            return self.call(dot, name, &first.place, rest, last);
        }
        if let Some(argument) = rest.first() {
            return Err(self
                .error("what stands before this is not a function, it takes no arguments", &argument.place));
        }
        if last.is_some() {
            return Err(
                self.error("this is not a function that could take what comes before |", &first.place)
            );
        }
        self.operand(dot, first)
    }

    fn call(
        &mut self,
        dot: &Shared<'v>,
        name: &str,
        place: &Place,
        operands: &'v [Operand],
        last: Option<Shared<'v>>,
    ) -> Result<Shared<'v>, TemplateError> {
        if matches!(name, "and" | "or") {
            return self.first_that_decides(dot, name == "or", place, operands, last);
        }
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            arguments.push(self.operand(dot, operand)?);
        }
        arguments.extend(last);
        let result = self.functions.call(name, arguments);
        let result = result.map_err(|message| self.error(message, place))?;
        self.count_value(&result)?;
        Ok(result)
    }

    /// Returns the first argument that decides an `and` or an `or`, else the last; looks at no more.
    fn first_that_decides(
        &mut self,
        dot: &Shared<'v>,
        deciding: bool,
        place: &Place,
        operands: &'v [Operand],
        last: Option<Shared<'v>>,
    ) -> Result<Shared<'v>, TemplateError> {
        let mut value = None;
        for operand in operands {
            let next = self.operand(dot, operand)?;
            if next.is_true() == deciding {
                return Ok(next);
            }
            value = Some(next);
        }
        last.or(value).ok_or_else(|| self.error("this needs an argument", place))
    }

    /// Counts what a value that was made weighs.
    fn count_value(&mut self, value: &Shared<'v>) -> Result<(), TemplateError> {
        match value {
            Cow::Owned(Value::String(text)) => self.count(text.len()),
            Cow::Owned(Value::List(list)) => self.count(list.len() * size_of::<Value>()),
            _ => Ok(()),
        }
    }

    fn operand(&mut self, dot: &Shared<'v>, operand: &'v Operand) -> Result<Shared<'v>, TemplateError> {
        let mut value = match &operand.kind {
            OperandKind::Dot => dot.clone(),
            OperandKind::Nil => Cow::Owned(Value::Null),
            OperandKind::Constant(value) => Cow::Borrowed(value),
            OperandKind::Variable(name) => {
                let mut known = self.variables.iter().rev();
                let value = known.find(|(known, _)| known == name).map(|(_, value)| value.clone());
                value.ok_or_else(|| self.error(format!("{name} has no value here"), &operand.place))?
            }
            OperandKind::Function(name) => self.call(dot, name, &operand.place, &[], None)?,
            OperandKind::Pipeline(pipeline) => self.pipeline(dot, pipeline)?,
        };
        for (name, place) in &operand.fields {
            value = match value {
                Cow::Borrowed(value) => Cow::Borrowed(self.field(value, name, place)?),
                Cow::Owned(value) => Cow::Owned(self.field(&value, name, place)?.clone()),
            };
        }
        if operand.fields.is_empty() {
            self.count_value(&value)?;
        }
        Ok(value)
    }

    fn field<'a>(&self, value: &'a Value, name: &str, place: &Place) -> Result<&'a Value, TemplateError> {
        static NOTHING: Value = Value::Null;
        match value {
            Value::Object(object) => match object.get(name) {
                Some(value) => Ok(value),
                None if object.is_structure() => {
                    let mut names: Vec<&str> = object.names().collect();
                    names.sort_unstable();
                    let same = names.iter().find(|known| known.eq_ignore_ascii_case(name));
                    let hint = match same {
                        Some(known) => format!(" (did you mean {known}?)"),
                        None => did_you_mean(name, &names),
                    };
                    let list = names.join(", ");
                    Err(self.error(format!("there is no field {name}{hint}; there are {list}"), place))
                }
                None => Ok(&NOTHING),
            },
            Value::Null => Ok(&NOTHING),
            other => Err(self.error(format!("{} has no fields, so no {name}", other.kind()), place)),
        }
    }
}
