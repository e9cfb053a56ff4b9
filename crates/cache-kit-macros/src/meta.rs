//! What the arguments of the macros have in common.

use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{LitStr, Result, Token, bracketed};

use crate::template::Template;

/// Takes the value of an argument that may be said once.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(meta.error("said twice; leave one of them out"));
    }
    Ok(())
}

/// `tags = ["tenant:{tenant_id}", …]`
pub(crate) fn tags(meta: &ParseNestedMeta<'_>) -> Result<Vec<Template>> {
    let input = meta.value()?;
    if !input.peek(syn::token::Bracket) {
        return Err(input.error("tags are a list: write `tags = [\"tenant:{tenant_id}\"]`"));
    }
    let list;
    bracketed!(list in input);
    let texts = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?;
    texts.iter().map(Template::parse).collect()
}
