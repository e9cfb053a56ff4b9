//! What `#[cached(…)]` says.

use proc_macro2::{Ident, Span};
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, LitBool, LitStr, Result, Token, parenthesized};

use crate::duration::Life;
use crate::meta::{once, tags};
use crate::template::Template;

const KNOWN: &str = "`cache`, `key`, `ttl`, `tags`, `policy`, `skip`, `detached` and `siblings`";

pub(crate) struct Arguments {
    pub(super) cache: Expr,
    pub(super) key: Template,
    pub(super) life: Option<Life>,
    pub(super) tags: Vec<Template>,
    pub(super) policy: Option<Expr>,
    /// Arguments that the key does without, on purpose.
    pub(super) skip: Vec<Ident>,
    /// Whether the load outlives its caller; where that is said.
    pub(super) detached: Option<Span>,
    /// Whether `…_invalidate` and `…_refresh` are made.
    pub(super) siblings: bool,
}

#[derive(Default)]
struct Found {
    cache: Option<Expr>,
    key: Option<Template>,
    life: Option<Life>,
    tags: Vec<Template>,
    policy: Option<Expr>,
    skip: Vec<Ident>,
    detached: Option<Span>,
    siblings: Option<bool>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut found = Found::default();
        let tokens: proc_macro2::TokenStream = input.parse()?;
        syn::meta::parser(|meta| found.read(&meta)).parse2(tokens)?;
        let missing = |what: &str| Error::new(Span::call_site(), what);
        Ok(Self {
            cache: found.cache.ok_or_else(|| {
                missing("`cached` has no cache: write `cache = CACHE` with a `static CACHE: LazyLock<Cache>`, `cache = self.cache`, or whatever else leads to a `Cache`")
            })?,
            key: found.key.ok_or_else(|| {
                missing("`cached` has no key: write `key = \"user:{id}\"`, with each argument that the answer depends on")
            })?,
            life: found.life,
            tags: found.tags,
            policy: found.policy,
            skip: found.skip,
            detached: found.detached,
            siblings: found.siblings.unwrap_or(true),
        })
    }
}

impl Found {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let Some(name) = meta.path.get_ident() else {
            return Err(meta.error(format!("not known here; `cached` has {KNOWN}")));
        };
        match name.to_string().as_str() {
            "cache" => once(&mut self.cache, meta.value()?.parse()?, meta),
            "key" => once(&mut self.key, Template::parse(&meta.value()?.parse::<LitStr>()?)?, meta),
            "ttl" => once(&mut self.life, Life::parse(&meta.value()?.parse()?)?, meta),
            "policy" => once(&mut self.policy, meta.value()?.parse()?, meta),
            "siblings" => once(&mut self.siblings, meta.value()?.parse::<LitBool>()?.value, meta),
            "tags" => {
                self.tags.extend(tags(meta)?);
                Ok(())
            }
            "skip" => {
                let list;
                parenthesized!(list in meta.input);
                self.skip.extend(Punctuated::<Ident, Token![,]>::parse_terminated(&list)?);
                Ok(())
            }
            "detached" => {
                self.detached = Some(name.span());
                Ok(())
            }
            other => Err(meta.error(format!("`{other}` is not known here; `cached` has {KNOWN}"))),
        }
    }
}
