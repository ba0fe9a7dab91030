# Walks through a value and tells about each target on the way, by traces.
#
# A trace is a line "NONCE EVENT JSON". The nonce is new for each evaluator, so
# that nothing evaluated can forge one. A target is announced before anything of
# it is evaluated (at), then described (target): when an evaluator dies, the
# target that was announced last is what killed it, and the next evaluator
# resumes after it. The order of the walk is always the same.
#
# Other events: a requested attribute is missing; something was left out because
# of its system (omit).
{
  nonce,
  systems, # that are wanted
  currentSystem,
  resume, # null, or { root = N; path = [ … ]; }: go on after this path of root N
  base, # path of the value
  roots, # [ { path = [ … ]; required = bool; outputs = null or [ … ]; } ]: what to walk,
  #        seen from the value, and which outputs of it are wanted
  flake, # whether the value is (part of) the outputs of a flake
}:
value:
let
  inherit (builtins)
    attrNames
    elem
    elemAt
    filter
    foldl'
    functionArgs
    head
    isAttrs
    isFunction
    length
    listToAttrs
    match
    seq
    tail
    toJSON
    trace
    ;

  say = event: data: trace "${nonce} ${event} ${toJSON data}" null;

  each = f: foldl' (_: x: seq (f x) null) null;

  isDerivation = v: isAttrs v && v.type or null == "derivation";

  # As Nix does for `nix-build FILE`: a function whose arguments all have
  # defaults is called with none.
  call =
    v:
    if isFunction v && !(elem false (map (a: (functionArgs v).${a}) (attrNames (functionArgs v)))) then
      v { }
    else
      v;

  # What is known of the outputs of a flake. A schema says what lies at a path.
  host = suffix: { inherit suffix; };
  every = of: { inherit of; };
  perSystem = of: {
    inherit of;
    keys = "systems";
  };
  anything = {
    recurse = false;
  };
  outputs = {
    nixosConfigurations = every (host [
      "config"
      "system"
      "build"
      "toplevel"
    ]);
    darwinConfigurations =
      if filter (s: match ".*-darwin" s != null) systems != [ ] then
        every (host [ "system" ])
      else
        { omitted = true; };
    homeConfigurations = every (host [ "activationPackage" ]);
    packages = perSystem (every anything);
    checks = perSystem (every anything);
  };

  # The schema of the path that is rooted at the outputs of a flake.
  schemaOf =
    path:
    let
      asked = {
        recurse = true;
      };
    in
    if !flake || path == [ ] then
      asked
    else
      foldl' (schema: _: schema.of or asked) (outputs.${head path} or asked) (tail path);

  describe =
    chosen: path: v:
    let
      wanted =
        if chosen == [ "*" ] then
          v.outputs or [ "out" ]
        else if chosen != null then
          chosen
        else if v.outputSpecified or false then
          [ v.outputName ]
        else
          v.meta.outputsToInstall or [ (v.outputName or "out") ];
    in
    say "target" {
      inherit path;
      inherit (v) drvPath system;
      name = v.name or "";
      outputs = wanted;
      outPaths = listToAttrs (
        map (o: {
          name = o;
          value = v.${o}.outPath or null;
        }) wanted
      );
    };

  # The path that a walk must resume after, seen from the child called name:
  # null means all of the child, { skip } none of it.
  after =
    resume: name:
    if resume == null || resume == [ ] then
      null
    else if name < head resume then
      { skip = true; }
    else if name == head resume then
      if tail resume == [ ] then { skip = true; } else { resume = tail resume; }
    else
      null;

  walk =
    chosen: schema: resume: path: v:
    if schema ? omitted then
      say "omit" path
    else if schema ? suffix then
      describe chosen (path ++ schema.suffix) (foldl' (set: name: set.${name}) v schema.suffix)
    else if schema ? of then
      children chosen schema.of (schema.keys or null) resume path v
    else if isDerivation v then
      describe chosen path v
    else if isAttrs v && (schema.recurse || v.recurseForDerivations or false) then
      children chosen anything null resume path v
    else
      null;

  children =
    chosen: schema: keys: resume: path: v:
    each (
      name:
      let
        how = after resume name;
        here = path ++ [ name ];
      in
      if how ? skip then
        null
      else if keys == "systems" && !(elem name systems) then
        say "omit" here
      else
        seq (say "at" here) (walk chosen schema (how.resume or null) here (call v.${name}))
    ) (attrNames v);

  # Goes down to a root. As in Nix, a name that is no output of the flake may be
  # that of a package.
  find =
    path:
    let
      go =
        v: here: rest:
        let
          set = call v;
        in
        if rest == [ ] then
          { inherit path; value = set; }
        else if isAttrs set && set ? ${head rest} then
          go set.${head rest} (here ++ [ (head rest) ]) (tail rest)
        else
          {
            missing = {
              path = here ++ [ (head rest) ];
              have = if isAttrs set then attrNames set else [ ];
            };
          };
    in
    go value base path;

  enter =
    root: resume:
    let
      direct = find root.path;
      candidates = [ direct ] ++ map find (
        if flake && base == [ ] && root.required then
          [
            ([ "packages" currentSystem ] ++ root.path)
            ([ "legacyPackages" currentSystem ] ++ root.path)
          ]
        else
          [ ]
      );
      found = filter (c: c ? value) candidates;
      at = base ++ (head found).path;
    in
    if found != [ ] then
      seq (say "found" at) (walk root.outputs (schemaOf at) resume at (head found).value)
    else if root.required then
      say "missing" direct.missing
    else
      null;
in
each (
  n:
  if resume != null && (n < resume.root || n == resume.root && resume.path == [ ]) then
    null
  else
    seq
      (say "root" {
        inherit n;
        path = base ++ (elemAt roots n).path;
      })
      (enter (elemAt roots n) (if resume != null && n == resume.root then resume.path else null))
) (builtins.genList (n: n) (length roots))
