//! What a client sends, looked at field by field, so that an error can name the field.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::AppError;
use crate::model::category_name;

/// The fields of a JSON body that have not been looked at yet.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn of(body: Map<String, Value>) -> Self {
        Self(body)
    }

    /// A text of 1 to `longest` characters, none of them for control, without the spaces around it.
    pub(crate) fn text(&mut self, name: &'static str, longest: usize) -> Result<String, AppError> {
        let Value::String(text) = self.take(name)? else {
            return Err(AppError::invalid(name, format!("`{name}` is not a text")));
        };
        let text = text.trim();
        let problem = match text.chars().count() {
            0 => "is empty".to_owned(),
            length if length > longest => format!("is longer than {longest} characters"),
            _ if text.contains(char::is_control) => "has control characters".to_owned(),
            _ => return Ok(text.to_owned()),
        };
        Err(AppError::invalid(name, format!("`{name}` {problem}")))
    }

    /// A whole number.
    pub(crate) fn whole(
        &mut self,
        name: &'static str,
        allowed: RangeInclusive<i64>,
    ) -> Result<i64, AppError> {
        let value = self.take(name)?;
        value.as_i64().filter(|number| allowed.contains(number)).ok_or_else(|| out_of_range(name, &allowed))
    }

    /// True or false.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, AppError> {
        let value = self.take(name)?;
        value.as_bool().ok_or_else(|| AppError::invalid(name, format!("`{name}` is neither true nor false")))
    }

    /// Says no to fields that nobody has asked for: most likely somebody has misspelt one.
    pub(crate) fn finish(self) -> Result<(), AppError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(AppError::invalid(name, "there is no such field")),
        }
    }

    fn take(&mut self, name: &'static str) -> Result<Value, AppError> {
        self.0.remove(name).ok_or_else(|| AppError::invalid(name, format!("`{name}` is missing")))
    }
}

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Rows with higher ids only.
    pub(crate) after: i64,
    pub(crate) limit: i64,
    /// Products of this category only.
    pub(crate) category: Option<String>,
}

impl Page {
    pub(crate) const LIMIT: i64 = 20;

    /// Reads the parameters of a query.
    pub(crate) fn read(mut query: BTreeMap<String, String>, by_category: bool) -> Result<Self, AppError> {
        let mut number =
            |name: &'static str, default: i64, allowed: RangeInclusive<i64>| match query.remove(name) {
                None => Ok(default),
                Some(text) => {
                    let number = text.parse().ok().filter(|number| allowed.contains(number));
                    number.ok_or_else(|| out_of_range(name, &allowed))
                }
            };
        let after = number("after", 0, 0..=i64::MAX)?;
        let limit = number("limit", Self::LIMIT, 1..=100)?;
        let category = match by_category {
            true => query.remove("category").map(|name| category_name(&name)).transpose()?,
            false => None,
        };
        match query.into_keys().next() {
            None => Ok(Self { after, limit, category }),
            Some(name) => Err(AppError::invalid(name, "there is no such parameter")),
        }
    }
}

fn out_of_range(name: &'static str, allowed: &RangeInclusive<i64>) -> AppError {
    let (least, most) = (allowed.start(), allowed.end());
    AppError::invalid(name, format!("`{name}` is not a whole number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &[(&str, &str)]) -> Result<Page, AppError> {
        Page::read(query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(), true)
    }

    #[test]
    fn a_page_has_defaults_and_bounds() {
        assert_eq!(page(&[]).unwrap(), Page { after: 0, limit: 20, category: None });
        assert_eq!(page(&[("limit", "100"), ("after", "7"), ("category", "tools")]).unwrap().limit, 100);
        for (name, value) in [
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "ten"),
            ("after", "-1"),
            ("category", "?"),
            ("x", "1"),
        ] {
            assert_eq!(page(&[(name, value)]).unwrap_err().field(), Some(name));
        }
    }
}
