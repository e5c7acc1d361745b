"""The node types that `references` understands, and the fields whose type the grammar fixes.

Whatever is not listed here is not understood, and a statement that contains it is not proven: a node type that a
later grammar brings must be read about before it is added. A fixed field (`{"relation": "RangeVar"}`) holds the
fields of its node directly; all other nodes come wrapped in their type's name. The test compares this table with
pglast's own description of the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PLAIN: Mapping[str, str] = MappingProxyType({})

FIXED: Mapping[str, Mapping[str, str]] = MappingProxyType({
    # statements
    "SelectStmt": {"withClause": "WithClause", "larg": "SelectStmt", "rarg": "SelectStmt", "intoClause": "IntoClause"},
    "InsertStmt": {
        "relation": "RangeVar", "onConflictClause": "OnConflictClause", "returningClause": "ReturningClause",
        "withClause": "WithClause",
    },
    "UpdateStmt": {"relation": "RangeVar", "returningClause": "ReturningClause", "withClause": "WithClause"},
    "DeleteStmt": {"relation": "RangeVar", "returningClause": "ReturningClause", "withClause": "WithClause"},
    "MergeStmt": {"relation": "RangeVar", "returningClause": "ReturningClause", "withClause": "WithClause"},
    # clauses
    "OnConflictClause": {"infer": "InferClause"},
    "CommonTableExpr": {"search_clause": "CTESearchClause", "cycle_clause": "CTECycleClause"},
    "JoinExpr": {"join_using_alias": "Alias", "alias": "Alias"},
    "RangeVar": {"alias": "Alias"},
    "RangeSubselect": {"alias": "Alias"},
    "RangeFunction": {"alias": "Alias"},
    "RangeTableFunc": {"alias": "Alias"},
    "RangeTableFuncCol": {"typeName": "TypeName"},
    "ColumnDef": {"typeName": "TypeName", "identitySequence": "RangeVar", "collClause": "CollateClause"},
    # expressions
    "FuncCall": {"over": "WindowDef"},
    "TypeCast": {"typeName": "TypeName"},
    "XmlSerialize": {"typeName": "TypeName"},
    "JsonTable": {
        "context_item": "JsonValueExpr", "pathspec": "JsonTablePathSpec", "on_error": "JsonBehavior", "alias": "Alias",
    },
    "JsonTableColumn": {
        "typeName": "TypeName", "pathspec": "JsonTablePathSpec", "format": "JsonFormat", "on_empty": "JsonBehavior",
        "on_error": "JsonBehavior",
    },
    "JsonOutput": {"typeName": "TypeName", "returning": "JsonReturning"},
    "JsonReturning": {"format": "JsonFormat"},
    "JsonValueExpr": {"format": "JsonFormat"},
    "JsonFuncExpr": {
        "context_item": "JsonValueExpr", "output": "JsonOutput", "on_empty": "JsonBehavior",
        "on_error": "JsonBehavior",
    },
    "JsonArgument": {"val": "JsonValueExpr"},
    "JsonIsPredicate": {"format": "JsonFormat"},
    "JsonParseExpr": {"expr": "JsonValueExpr", "output": "JsonOutput"},
    "JsonScalarExpr": {"output": "JsonOutput"},
    "JsonSerializeExpr": {"expr": "JsonValueExpr", "output": "JsonOutput"},
    "JsonKeyValue": {"value": "JsonValueExpr"},
    "JsonObjectConstructor": {"output": "JsonOutput"},
    "JsonArrayConstructor": {"output": "JsonOutput"},
    "JsonArrayQueryConstructor": {"output": "JsonOutput", "format": "JsonFormat"},
    "JsonAggConstructor": {"output": "JsonOutput", "over": "WindowDef"},
    "JsonObjectAgg": {"constructor": "JsonAggConstructor", "arg": "JsonKeyValue"},
    "JsonArrayAgg": {"constructor": "JsonAggConstructor", "arg": "JsonValueExpr"},
} | dict.fromkeys(
    (
        "List", "MergeWhenClause", "WithClause", "CTESearchClause", "CTECycleClause", "ResTarget", "ColumnRef",
        "A_Expr", "BoolExpr", "NullTest", "BooleanTest", "NamedArgExpr", "TypeName", "CollateClause", "A_Indirection",
        "A_Indices", "A_ArrayExpr", "RowExpr", "CaseExpr", "CaseWhen", "CoalesceExpr", "MinMaxExpr", "SubLink",
        "SQLValueFunction", "GroupingFunc", "GroupingSet", "WindowDef", "SortBy", "RangeTableSample", "Alias",
        "LockingClause", "InferClause", "IndexElem", "SetToDefault", "MultiAssignRef", "CurrentOfExpr", "XmlExpr",
        "ReturningClause", "ReturningOption", "MergeSupportFunc", "JsonBehavior", "JsonTablePathSpec", "JsonFormat",
    ),
    _PLAIN,
))  # fmt: skip
"""Understood node types that have inner nodes, each with its fixed fields. IntoClause is left out on purpose."""

LEAVES = frozenset(("String", "Integer", "Float", "Boolean", "BitString", "A_Const", "ParamRef", "A_Star"))
"""Understood node types without inner nodes."""
