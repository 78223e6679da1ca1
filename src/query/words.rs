//! SQL text as tokens, in which `offset` needs no quotes.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::QueryError;

/// Parses statements that are separated by `;`.
///
/// `offset` is a column of the view `events`, and a keyword of SQL. It is the keyword only before a number, a parameter or
/// a bracket, as in `LIMIT 10 OFFSET 20`.
pub(super) fn statements(sql: &str) -> Result<Vec<Statement>, QueryError> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| QueryError::sql(ParserError::from(error).into()))?;
    for at in 0..tokens.len() {
        if is_offset(&tokens[at].token) && !begins_a_clause(&tokens[at + 1..]) {
            let Token::Word(word) = &mut tokens[at].token else {
                continue;
            };
            // A column's name, in the case in which the view has it.
            word.value = word.value.to_lowercase();
            word.quote_style = Some('"');
            word.keyword = Keyword::NoKeyword;
        }
    }
    let parser = DFParserBuilder::new(tokens).build();
    let statements = parser.and_then(|mut parser| parser.parse_statements());
    Ok(statements.map_err(QueryError::sql)?.into())
}

fn is_offset(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.keyword == Keyword::OFFSET && word.quote_style.is_none())
}

fn begins_a_clause(after: &[TokenWithSpan]) -> bool {
    let mut after = after.iter().map(|token| &token.token);
    let next = after.find(|token| !matches!(token, Token::Whitespace(_)));
    matches!(
        next,
        Some(Token::Number(..) | Token::Placeholder(_) | Token::LParen)
    )
}
