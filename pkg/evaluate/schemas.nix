# The outputs of a flake that are known. A schema describes the values at a path.
{
  flake,
  host,
  systems,
}: # see evaluate.nix
let
  inherit (builtins)
    attrNames
    filter
    foldl'
    head
    match
    tail
    ;

  # The values in a set: of returns the schema of a name, keys are the names that count.
  hosts = suffix: { of = _: { inherit suffix; }; };
  perSystem = schema: {
    of = _: schema;
    keys = "systems";
  };
  every = schema: { of = _: schema; };
  only = schemas: {
    of = name: schemas.${name} or asked;
    keys = attrNames schemas;
  };
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
  # The sets of hosts, which may be anywhere.
  fleets = {
    nixosConfigurations = hosts host;
    darwinConfigurations =
      if filter (s: match ".*-darwin" s != null) systems != [ ] then
        hosts [ "system" ]
      else
        { omitted = true; };
    homeConfigurations = hosts [ "activationPackage" ];
    deploy = only { nodes = every (only { profiles = hosts [ "path" ]; }); }; # deploy-rs
    colmenaHive = only { nodes = hosts host; };
  };
  # The schema of a name that may be such a set. What does not fit, such as a package of that name,
  # has another schema.
  orFleet =
    otherwise: name:
    let
      fleet = fleets.${name};
    in
    if !(fleets ? ${name}) then
      otherwise
    else if fleet ? of then
      fleet
      // {
        inherit otherwise;
        of = n: fleet.of n // { inherit otherwise; };
      }
    else
      fleet;
  outputs = fleets // {
    deploy = orFleet asked "deploy";
    colmenaHive = orFleet asked "colmenaHive";
    packages = perSystem { of = orFleet item; };
    legacyPackages = perSystem { of = orFleet (item // { named = false; }); };
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
      foldl' (
        schema: name:
        if schema ? of then
          schema.of name
        else if schema ? deep then
          deep
        else
          fleets.${name} or asked
      ) (outputs.${head path} or asked) (tail path);
in
{
  inherit deep schemaOf;
  # The schema of a name in a set that is entered and not known.
  below = if flake then orFleet anything else _: anything;
}
