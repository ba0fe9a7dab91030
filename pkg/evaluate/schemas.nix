# The outputs of a flake that are known. A schema describes the values at a path.
{
  flake,
  host,
  systems,
}: # see evaluate.nix
let
  inherit (builtins)
    filter
    foldl'
    head
    match
    tail
    ;

  hosts = suffix: { of = { inherit suffix; }; };
  perSystem = of: {
    inherit of;
    keys = "systems";
  };
  every = of: { inherit of; };
  anything = {
    recurse = false;
  };
  item = anything // {
    item = true;
    named = true; # report a value that is no derivation
  };
  check = item // {
    strict = true; # it has to be a derivation, as for `nix flake check`
  };
  asked = {
    recurse = true;
    named = true;
  };
  deep = {
    deep = true;
    named = true;
  };
  outputs = {
    nixosConfigurations = hosts host;
    darwinConfigurations =
      if filter (s: match ".*-darwin" s != null) systems != [ ] then
        hosts [ "system" ]
      else
        { omitted = true; };
    homeConfigurations = hosts [ "activationPackage" ];
    packages = perSystem (every item);
    legacyPackages = perSystem (every (item // { named = false; }));
    checks = perSystem (every check);
    devShells = perSystem (every item);
    formatter = perSystem item;
    hydraJobs = deep;
  };

  # The schema of the path that is rooted at the outputs of a flake.
  schemaOf =
    path:
    if !flake || path == [ ] then
      asked
    else
      foldl' (schema: _: schema.of or (if schema ? deep then deep else asked)) (outputs.${head path} or asked
      ) (tail path);
in
{
  inherit anything deep schemaOf;
}
