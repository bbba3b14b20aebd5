// Shows the API description with Swagger UI, whose documentation has these options under "Configuration".

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

globalThis.SwaggerUIBundle({
  url: "/mlapi/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // Nothing is sent elsewhere, and no setting is taken from the address.
  validatorUrl: null,
  queryConfigEnabled: false,
});
