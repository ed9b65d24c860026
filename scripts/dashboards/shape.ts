// What a dashboard's JSON has to be: Grafana's own types, as narrow as they are for each kind of panel.
import type { Dashboard, DataSourceRef, FieldConfig, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the values of enums, not their names.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? // Not `number extends T`: that holds for enums of numbers, too.
      `${number}` extends `${T}`
      ? number
      : `${T}` extends `${infer N extends number}`
        ? N
        : never
    : T extends (infer U)[]
      ? Plain<U>[]
      : T extends object
        ? { [K in keyof T]: Plain<T[K]> }
        : T;

// The schema has no Prometheus query. This is what the dashboards use of one.
interface Target {
  datasource: DataSourceRef;
  editorMode: 'code';
  expr: string;
  format?: 'heatmap' | 'table' | 'time_series';
  instant?: boolean;
  legendFormat: string;
  range: boolean;
  refId: string;
}

// Grafana fills in options that are left out, but not parts of one.
type PanelOf<Type extends string, Options, Custom> = Omit<Plain<Panel>, 'fieldConfig' | 'options' | 'targets' | 'type'> & {
  type: Type;
  datasource: DataSourceRef;
  fieldConfig: {
    defaults: Omit<Plain<FieldConfig>, 'custom'> & { custom?: Partial<Plain<Custom>> };
    overrides: [];
  };
  options: Partial<Plain<Options>>;
  targets: Target[];
};

type AnyPanel =
  | PanelOf<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | PanelOf<'stat', stat.Options, Record<string, never>>
  | PanelOf<'state-timeline', timeline.Options, timeline.FieldConfig>
  | PanelOf<'table', table.Options, table.FieldConfig>
  | PanelOf<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Plain<RowPanel>;

// `definition` is what Grafana shows of a query in the list of variables; the schema does not know it.
type Variable = Plain<VariableModel> & { definition?: string };

export type Shape = Omit<Plain<Dashboard>, 'panels' | 'templating'> & {
  panels: AnyPanel[];
  templating: { list: Variable[] };
};
