//! SQL text as tokens, in which `offset` needs no quotes.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::QueryError;

/// Largest number of operators in a chain. DataFusion calls itself for each of them, which takes 18 kB of stack in a debug build.
const MOST_OPERATORS: usize = 1_000;

/// Parses statements that are separated by `;`.
///
/// `offset` is a column of the view `events`, and a keyword of SQL. It is the keyword only before a number, a parameter or
/// a bracket, as in `LIMIT 10 OFFSET 20`.
pub(super) fn statements(sql: &str) -> Result<Vec<Statement>, QueryError> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| QueryError::sql(ParserError::from(error).into()))?;
    let found = longest_chain(&tokens);
    if found > MOST_OPERATORS {
        return Err(QueryError::Long {
            found,
            most: MOST_OPERATORS,
        });
    }
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

/// Returns the number of operators of the longest chain, such as 2 for `a AND (b + 1) OR c`. A comma ends a chain, so that lists
/// may have any length. Comparisons do not count, because they are not chained.
fn longest_chain(tokens: &[TokenWithSpan]) -> usize {
    // The operators so far in every open bracket.
    let mut open = vec![0];
    let mut longest = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => open.push(0),
            Token::RParen | Token::RBracket if open.len() > 1 => {
                open.pop();
            }
            Token::Comma | Token::SemiColon => *open.last_mut().expect("the outermost stays") = 0,
            Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::DoubleColon
            | Token::Ampersand
            | Token::Pipe
            | Token::Caret => *open.last_mut().expect("the outermost stays") += 1,
            Token::Word(word) if CHAINING.contains(&word.keyword) => {
                *open.last_mut().expect("the outermost stays") += 1;
            }
            _ => {}
        }
        longest = longest.max(*open.last().expect("the outermost stays"));
    }
    longest
}

/// Keywords that join two expressions, tables or queries to one.
const CHAINING: [Keyword; 7] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::XOR,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::JOIN,
];

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
