#!/usr/bin/env node
// A stand-in for Prisma's query engine, a program that is not available where only package indexes can be reached.
//
// LiteLLM's client starts it with "-p PORT" and sends GraphQL to it. What answers here is Prisma's own engine all the
// same, in the form that the npm package brings for other uses: WebAssembly that takes Prisma's JSON protocol and a
// driver for PostgreSQL. So this translates, and covers as much of both sides as LiteLLM uses.
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');

// LiteLLM's client is made for this one, which had no such form yet; what runs here is a year younger.
const VERSION = 'ac9d7041ed77bcc8a8dbd2ab6616b39013829574';
const words = process.argv.slice(2);
if (words.includes('--version')) {
  console.log(`query-engine ${VERSION}`);
  process.exit(0);
}

const { Pool } = require('pg');
const pgResult = require('pg/lib/result').prototype;
const { PrismaPg } = require('@prisma/adapter-pg');
const { bindAdapter } = require('@prisma/driver-adapter-utils');
const { parse } = require('graphql');
const runtime = path.join(path.dirname(require.resolve('@prisma/client/package.json')), 'runtime');
const wasm = require(path.join(runtime, 'query_engine_bg.postgresql.js'));

const EMPTY_TRACE = '{}';
const ACTION =
  /^(findUnique|findFirst|findMany|createOne|createMany|updateOne|updateMany|deleteOne|deleteMany|upsertOne|aggregate|groupBy)(.+?)(OrThrow)?$/;

// The driver has no column of these types: name, void and regclass are text, oid is a number.
const KNOWN_TYPES = { 19: 25, 2205: 25, 2278: 25, 26: 20 };
const addFields = pgResult.addFields;
pgResult.addFields = function (fields) {
  for (const field of fields) field.dataTypeID = KNOWN_TYPES[field.dataTypeID] || field.dataTypeID;
  return addFields.call(this, fields);
};

// --- from GraphQL to the JSON protocol

function literal(node) {
  switch (node.kind) {
    case 'IntValue': {
      const number = Number(node.value);
      return Number.isSafeInteger(number) ? number : { $type: 'BigInt', value: node.value };
    }
    case 'FloatValue':
      return Number(node.value);
    case 'NullValue':
      return null;
    case 'ListValue':
      return node.values.map(literal);
    case 'ObjectValue':
      return Object.fromEntries(node.fields.map((field) => [field.name.value, literal(field.value)]));
    default:
      return node.value;
  }
}

const argumentsOf = (node) =>
  Object.fromEntries((node.arguments || []).map((argument) => [argument.name.value, literal(argument.value)]));

const selectionOf = (node) =>
  Object.fromEntries(
    node.selectionSet.selections.map((field) => [
      field.name.value,
      field.selectionSet ? { arguments: argumentsOf(field), selection: selectionOf(field) } : true,
    ]),
  );

// GraphQL has JSON as text; the other protocol marks which text is JSON.
function jsonColumns(schema) {
  const columns = {};
  let model;
  for (const line of schema.split('\n')) {
    const begins = line.match(/^\s*model\s+(\w+)/);
    if (begins) columns[(model = begins[1])] = new Set();
    const column = line.match(/^\s*(\w+)\s+Json(\[\])?\??(\s|$)/);
    if (model && column) columns[model].add(column[1]);
  }
  return columns;
}

const asJson = (value) => ({ $type: 'Json', value });
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

function markJson(value, columns) {
  if (Array.isArray(value)) return value.map((item) => markJson(item, columns));
  if (!isObject(value) || value.$type) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      if (!columns.has(name)) return [name, markJson(item, columns)];
      if (typeof item === 'string') return [name, asJson(item)];
      if (!isObject(item) || item.$type) return [name, item];
      const marked = Object.entries(item).map(([filter, operand]) => [
        filter,
        typeof operand === 'string' && filter !== 'path' && filter !== 'mode' ? asJson(operand) : operand,
      ]);
      return [name, Object.fromEntries(marked)];
    }),
  );
}

function operation(field, columns) {
  const name = field.name.value;
  const query = { arguments: argumentsOf(field), selection: field.selectionSet ? selectionOf(field) : {} };
  if (name === 'queryRaw' || name === 'executeRaw') return { action: name, query: { ...query, selection: {} } };
  const match = name.match(ACTION);
  if (!match) throw new Error(`the stand-in does not implement the operation ${name}`);
  const [, action, modelName, orThrow] = match;
  // GraphQL asks for a number there, and the other protocol for an object with it.
  if (action.endsWith('Many') && action !== 'findMany') query.selection = { count: true };
  query.arguments = markJson(query.arguments, columns[modelName] || new Set());
  return { modelName, action: action + (orThrow || ''), query };
}

const operationsIn = (text) => parse(text).definitions[0].selectionSet.selections;
const answerName = (field) => (field.alias || field.name).value;

// --- and back

function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (!isObject(value)) return value;
  if (value.$type === 'BigInt') return Number.isSafeInteger(Number(value.value)) ? Number(value.value) : value.value;
  if (value.$type !== undefined) return value.value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}

// The rows of a raw SQL query carry a type at each value; columns with types came in a later form.
function typed(value, type) {
  if (value === null) return { prisma__type: 'null', prisma__value: null };
  if (!type.endsWith('-array')) return { prisma__type: type, prisma__value: value };
  return { prisma__type: 'array', prisma__value: value.map((item) => typed(item, type.slice(0, -'-array'.length))) };
}

const rowsOf = ({ columns, types, rows }) =>
  rows.map((row) => Object.fromEntries(row.map((value, index) => [columns[index], typed(value, types[index])])));

function onlyValue(data) {
  const [[name, value]] = Object.entries(data);
  return name === 'queryRaw' ? rowsOf(value) : plain(value);
}

function failure(error, place) {
  const unreachable = /external connector|ECONN|terminat/.test(String(error));
  const message = unreachable ? `Can't reach database server at \`${place}\`` : String(error);
  return {
    error: message,
    user_facing_error: { is_panic: false, message, meta: {}, error_code: unreachable ? 'P1001' : 'P2010' },
  };
}

class Engine {
  constructor(engine, columns, place) {
    this.engine = engine;
    this.columns = columns;
    this.place = place;
  }

  async ask(body, transaction) {
    return JSON.parse(await this.engine.query(JSON.stringify(body), EMPTY_TRACE, transaction));
  }

  errors(found) {
    return found.map((error) =>
      /external connector/.test(error.error || '') ? failure(error.error, this.place) : error,
    );
  }

  async single(text, transaction) {
    const fields = operationsIn(text);
    const asked = fields.map((field) => operation(field, this.columns));
    if (asked.length === 1) {
      const answer = await this.ask(asked[0], transaction);
      if (answer.errors) return { errors: this.errors(answer.errors) };
      return { data: { [answerName(fields[0])]: onlyValue(answer.data) } };
    }
    const answer = await this.ask({ batch: asked, transaction: { isolationLevel: null } }, transaction);
    const errors = answer.errors || (answer.batchResult || []).flatMap((one) => one.errors || []);
    if (errors.length) return { errors: this.errors(errors) };
    const values = answer.batchResult.map((one, index) => [answerName(fields[index]), onlyValue(one.data)]);
    return { data: Object.fromEntries(values) };
  }

  async batch(body, transaction) {
    const fields = body.batch.map((one) => operationsIn(one.query)[0]);
    const answer = await this.ask(
      {
        batch: fields.map((field) => operation(field, this.columns)),
        transaction: body.transaction ? { isolationLevel: null } : undefined,
      },
      transaction,
    );
    if (answer.errors) return { errors: this.errors(answer.errors) };
    return {
      batchResult: answer.batchResult.map((one, index) =>
        one.errors
          ? { errors: this.errors(one.errors) }
          : { data: { [fields[index].alias ? fields[index].alias.value : 'result']: onlyValue(one.data) } },
      ),
    };
  }

  async answer(url, body, transaction) {
    if (url === '/status') return '{"status":"ok"}';
    if (url.startsWith('/metrics')) return '{"counters":[],"gauges":[],"histograms":[]}';
    if (url === '/transaction/start') return this.engine.startTransaction(body, EMPTY_TRACE);
    const ends = url.match(/^\/transaction\/(.+)\/(commit|rollback)$/);
    if (ends) return (await this.engine[`${ends[2]}Transaction`](ends[1], EMPTY_TRACE)) || '{}';
    const asked = JSON.parse(body);
    return JSON.stringify(await (asked.batch ? this.batch(asked, transaction) : this.single(asked.query, transaction)));
  }
}

async function main() {
  const schema = fs.readFileSync(process.env.PRISMA_DML_PATH, 'utf8');
  const overwritten = process.env.OVERWRITE_DATASOURCES;
  const address = new URL(overwritten ? JSON.parse(overwritten)[0].url : process.env.DATABASE_URL);
  const max = Number(address.searchParams.get('connection_limit') || 10);
  address.search = '';

  const module = new WebAssembly.Module(fs.readFileSync(path.join(runtime, 'query_engine_bg.postgresql.wasm')));
  const instance = new WebAssembly.Instance(module, { './query_engine_bg.js': wasm });
  wasm.__wbg_set_wasm(instance.exports);
  if (instance.exports.__wbindgen_start) instance.exports.__wbindgen_start();
  const pool = new Pool({ connectionString: address.toString(), max });
  // A connection that ends while it is not in use is no error.
  pool.on('error', () => {});
  const settings = {
    datamodel: schema,
    configDir: '.',
    env: { DATABASE_URL: address.toString() },
    logQueries: false,
    ignoreEnvVarErrors: true,
    logLevel: 'error',
    engineProtocol: 'json',
  };
  const inner = new wasm.QueryEngine(settings, (text) => console.error(text), bindAdapter(new PrismaPg(pool)));
  await inner.connect(EMPTY_TRACE);
  const engine = new Engine(inner, jsonColumns(schema), address.host);

  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', async () => {
      let status = 200;
      let text;
      try {
        const body = Buffer.concat(chunks).toString();
        text = await engine.answer(request.url, body, request.headers['x-transaction-id']);
      } catch (error) {
        status = 500;
        text = JSON.stringify({ errors: [failure(error, engine.place)] });
      }
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(text);
    });
  });
  server.listen(Number(words[words.indexOf('-p') + 1]), 'localhost');
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
}

main().catch((error) => {
  console.error('the stand-in for the query engine does not start:', error);
  process.exit(1);
});
