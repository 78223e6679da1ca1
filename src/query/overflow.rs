//! Errors for whole numbers that overflow. DataFusion lets them wrap, so that a sum could be a wrong number.
//!
//! [`CheckedArithmetic`] replaces `+`, `-` and `*` of whole numbers, and their negation, by functions that fail.
//! [`CheckedSum`] adds whole numbers with 38 digits and fails if the result does not fit.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, merge_schema};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, BinaryExpr, ColumnarValue, EmitTo, Expr, ExprSchemable, GroupsAccumulator,
    LogicalPlan, Operator, ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::expressions::CastExpr;

/// Replaces arithmetic of whole numbers by functions that fail on overflow.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                let source = scan.source.schema();
                schema.merge(&DFSchema::try_from_qualified_schema(
                    scan.table_name.clone(),
                    &source,
                )?);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| checked(expr, &schema))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(checked.data)
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // The type of a column of an outer query is unknown here, so its arithmetic stays as it is.
    let is_whole = |expr: &Expr| expr.get_type(schema).is_ok_and(|of| of.is_integer());
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if let Some(operation) = Arithmetic::of(op)
                && is_whole(&left)
                && is_whole(&right) =>
        {
            Transformed::yes(operation.of_both(*left, *right))
        }
        Expr::Negative(of) if is_whole(&of) && !matches!(*of, Expr::Literal(..)) => {
            let zero = Expr::Literal(ScalarValue::new_zero(&of.get_type(schema)?)?, None);
            Transformed::yes(Arithmetic::Minus.of_both(zero, *of))
        }
        other => Transformed::no(other),
    })
}

/// An operation of two whole numbers of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Arithmetic {
    Plus,
    Minus,
    Times,
}

impl Arithmetic {
    fn of(operator: Operator) -> Option<Arithmetic> {
        match operator {
            Operator::Plus => Some(Arithmetic::Plus),
            Operator::Minus => Some(Arithmetic::Minus),
            Operator::Multiply => Some(Arithmetic::Times),
            _ => None,
        }
    }

    fn of_both(self, left: Expr, right: Expr) -> Expr {
        let signature = Signature::any(2, Volatility::Immutable);
        let function = CheckedFunction {
            operation: self,
            signature,
        };
        ScalarUDF::from(function).call(vec![left, right])
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedFunction {
    operation: Arithmetic,
    signature: Signature,
}

impl ScalarUDFImpl for CheckedFunction {
    fn name(&self) -> &str {
        match self.operation {
            Arithmetic::Plus => "checked_plus",
            Arithmetic::Minus => "checked_minus",
            Arithmetic::Times => "checked_times",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            unreachable!("the function is made with two arguments");
        };
        let operation = match self.operation {
            Arithmetic::Plus => numeric::add,
            Arithmetic::Minus => numeric::sub,
            Arithmetic::Times => numeric::mul,
        };
        datafusion::physical_expr_common::datum::apply(left, right, operation)
    }
}

/// The function `sum`, which fails if a sum of whole numbers does not fit into their type.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum(Sum);

/// Holds any sum of fewer than 2^63 whole numbers.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// Converts, and fails on a value that does not fit.
fn converted(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(values, to, &options)?)
}

fn widened_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(WIDE))
}

impl CheckedSum {
    /// Calls `make` with the arguments of a sum with 38 digits if it is a sum of whole numbers.
    fn wide<T>(
        args: AccumulatorArgs<'_>,
        make: impl FnOnce(AccumulatorArgs<'_>) -> Result<T>,
        wrap: impl FnOnce(T, DataType) -> T,
    ) -> Result<T> {
        let narrow = args.return_field.data_type().clone();
        if !narrow.is_integer() {
            return make(args);
        }
        let field = widened_field(&args.return_field);
        let exprs = args.exprs.iter().map(|expr| {
            let cast = CastExpr::new(expr.clone(), WIDE, None);
            Arc::new(cast) as _
        });
        let exprs: Vec<_> = exprs.collect();
        let fields: Vec<FieldRef> = args.expr_fields.iter().map(widened_field).collect();
        let args = AccumulatorArgs {
            return_field: field,
            exprs: &exprs,
            expr_fields: &fields,
            ..args
        };
        Ok(wrap(make(args)?, narrow))
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let make = |args: AccumulatorArgs<'_>| self.0.accumulator(args);
        CheckedSum::wide(args, make, |wide, narrow| Box::new(Wide { wide, narrow }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            // `Sum` has such an accumulator for Int64 only.
            return self.0.create_sliding_accumulator(args);
        }
        let make = |args: AccumulatorArgs<'_>| self.0.create_sliding_accumulator(args);
        CheckedSum::wide(args, make, |wide, narrow| Box::new(Wide { wide, narrow }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let make = |args: AccumulatorArgs<'_>| self.0.create_groups_accumulator(args);
        CheckedSum::wide(args, make, |wide, narrow| Box::new(Wide { wide, narrow }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let return_field = match args.return_type().is_integer() {
            true => widened_field(&args.return_field),
            false => args.return_field,
        };
        self.0.state_fields(StateFieldsArgs { return_field, ..args })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }
}

/// An accumulator of numbers with 38 digits, for numbers of the type `narrow`.
#[derive(Debug)]
struct Wide<A> {
    wide: A,
    narrow: DataType,
}

fn widened(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    values.iter().map(|values| converted(values, &WIDE)).collect()
}

impl Accumulator for Wide<Box<dyn Accumulator>> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.wide.update_batch(&widened(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.wide.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&converted(&sum, &self.narrow)?, 0)
    }

    fn size(&self) -> usize {
        self.wide.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.wide.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.wide.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.wide.retract_batch(&widened(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.wide.supports_retract_batch()
    }
}

impl GroupsAccumulator for Wide<Box<dyn GroupsAccumulator>> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.wide.update_batch(&widened(values)?, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        converted(&self.wide.evaluate(emit_to)?, &self.narrow)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.wide.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.wide.merge_batch(values, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.wide.convert_to_state(&widened(values)?, filter)
    }

    fn size(&self) -> usize {
        self.wide.size()
    }
}
