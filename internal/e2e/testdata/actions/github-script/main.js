// A script gets core and require. The real one hands out more (github, context, exec, …); nothing of it
// is used, and a script that tries fails here.
'use strict'
const core = require('@actions/core')

const AsyncFunction = (async () => {}).constructor
new AsyncFunction('core', 'require', core.getInput('script', { required: true }))(core, require)
  .then(result => core.setOutput('result', JSON.stringify(result ?? null)))
  .catch(err => core.setFailed(err))
