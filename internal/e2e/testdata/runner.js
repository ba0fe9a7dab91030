// Is loaded into each JavaScript step (by NODE_OPTIONS) and does what GitHub's runner does for those
// alone, where act does it for all steps: it hands out the runtime variables. It is strict besides: an
// input that action.yml does not declare ends the step, where GitHub only warns. The library undici, which is half of
// the start of a step and which none uses without a proxy, is loaded when it is used.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const Module = require('node:module')

Object.assign(process.env, JSON.parse(fs.readFileSync(process.env.E2E_RUNTIME, 'utf8')))

const action = path.join(path.dirname(process.argv[1]), 'action.yml')
const [, inputs] = fs.readFileSync(action, 'utf8').split(/^inputs:\n/m)
const declared = inputs.split(/^\S/m)[0].match(/^ {2}[a-z-]+(?=:)/gm).map(name => name.trim())
for (const name of Object.keys(process.env)) {
  const input = name.startsWith('INPUT_') && name.slice('INPUT_'.length).toLowerCase()
  if (input && !declared.includes(input)) {
    console.log(`::error::${action} has no input ${input}, only ${declared.join(', ')}`)
    process.exit(1)
  }
}

const load = Module._load
Module._load = (name, ...from) => name === 'undici' ? new Proxy({}, { get: (_, key) => load(name, ...from)[key] }) : load(name, ...from)
