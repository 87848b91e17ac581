// SPDX-License-Identifier: Apache-2.0
//! Source policies between our form and the protocol's.

use polyarch_build::source_policy::{
    Action, Condition, Constraint, MatchType, Rule, Selector, SourcePolicy, Update,
};
use polyarch_build::{BuildError, ErrorKind};

use crate::api::policy;

/// Reads a policy.
pub(crate) fn read(message: &policy::Policy) -> Result<SourcePolicy, BuildError> {
    let rules = message.rules.iter().map(rule).collect::<Result<_, BuildError>>()?;
    Ok(SourcePolicy { rules })
}

fn rule(message: &policy::Rule) -> Result<Rule, BuildError> {
    let selector = message.selector.as_ref().ok_or_else(|| wrong("a rule without a selector"))?;
    let constraints = selector.constraints.iter().map(|constraint| {
        let condition = Condition::of_protocol(constraint.condition);
        Ok(Constraint {
            key: constraint.key.clone(),
            value: constraint.value.clone(),
            condition: condition.ok_or_else(|| wrong("an unknown condition"))?,
        })
    });
    Ok(Rule {
        action: Action::of_protocol(message.action).ok_or_else(|| wrong("an unknown action"))?,
        selector: Selector {
            identifier: selector.identifier.clone(),
            match_type: MatchType::of_protocol(selector.match_type)
                .ok_or_else(|| wrong("an unknown match type"))?,
            constraints: constraints.collect::<Result<_, BuildError>>()?,
        },
        updates: message
            .updates
            .as_ref()
            .map(|it| Update { identifier: it.identifier.clone(), attrs: it.attrs.clone() }),
    })
}

/// Writes a policy.
pub(crate) fn message(policy: &SourcePolicy) -> policy::Policy {
    let rules = policy.rules.iter().map(|rule| policy::Rule {
        action: rule.action.number(),
        selector: Some(policy::Selector {
            identifier: rule.selector.identifier.clone(),
            match_type: rule.selector.match_type.number(),
            constraints: rule
                .selector
                .constraints
                .iter()
                .map(|constraint| policy::AttrConstraint {
                    key: constraint.key.clone(),
                    value: constraint.value.clone(),
                    condition: constraint.condition.number(),
                })
                .collect(),
        }),
        updates: rule
            .updates
            .as_ref()
            .map(|it| policy::Update { identifier: it.identifier.clone(), attrs: it.attrs.clone() }),
    });
    policy::Policy { version: 1, rules: rules.collect() }
}

fn wrong(what: &str) -> BuildError {
    BuildError::new(ErrorKind::Usage, format!("the source policy has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_come_back_as_they_were() {
        let policy = SourcePolicy {
            rules: vec![Rule {
                action: Action::Convert,
                selector: Selector {
                    identifier: "docker-image://a".to_owned(),
                    match_type: MatchType::Regex,
                    constraints: vec![Constraint {
                        key: "k".to_owned(),
                        value: "v".to_owned(),
                        condition: Condition::Matches,
                    }],
                },
                updates: Some(Update { identifier: "docker-image://b".to_owned(), ..Update::default() }),
            }],
        };
        let message = message(&policy);
        assert_eq!((message.rules[0].action, message.rules[0].selector.as_ref().unwrap().match_type), (2, 2));
        assert_eq!(read(&message).unwrap(), policy);
        let unknown = policy::Rule { action: 9, ..message.rules[0].clone() };
        assert!(read(&policy::Policy { version: 1, rules: vec![unknown] }).is_err());
    }
}
